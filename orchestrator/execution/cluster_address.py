"""Checks the address of a Ray cluster before anything is loaded or started. Does not import Ray."""

from __future__ import annotations

import socket

from supsup_core.errors import InputError

ANSWER_SECONDS = 4.0
"""For how many seconds a Ray cluster may take to accept a connection."""


def refuse_unreachable(cluster: str) -> None:
    """Raises InputError if nothing listens at the address of a Ray cluster. Ray itself would try for a quarter hour."""
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
    except (OSError, OverflowError, ValueError) as error:  # ValueError: a name that no host can have
        raise InputError(
            f"--address: nothing answers at {cluster} ({error}); start the cluster, correct the address, or remove "
            "--address and RAY_ADDRESS to start Ray on this machine"
        ) from error
