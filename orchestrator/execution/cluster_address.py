"""Checks the address of a Ray cluster before slow libraries are loaded. Does not import Ray."""

from __future__ import annotations

import socket

from supsup_core.errors import InputError

ANSWER_SECONDS = 4.0
"""The number of seconds that a Ray cluster may take to accept a connection."""


def refuse_unreachable(cluster: str) -> None:
    """Raises InputError if nothing listens at the address of a Ray cluster.

    Without this check, Ray would try to connect for 15 minutes.
    """
    if cluster.startswith(("http://", "https://")):
        raise InputError(
            f"--address: {cluster} is the URL of a dashboard; give the cluster's own address, such as HOST:6379, or "
            "submit the sweep as a job with `supsup submit`"
        )
    host, colon, port = cluster.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # such as `auto`, which Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()  # [::1] for IPv6
    except (OSError, OverflowError, ValueError) as error:  # ValueError: an invalid host name
        raise InputError(
            f"--address: nothing answers at {cluster} ({error}); start the cluster, correct the address, or remove "
            "--address and RAY_ADDRESS to start Ray on this machine"
        ) from error
