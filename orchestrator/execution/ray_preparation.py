"""Prepares this process for Ray before Ray and other slow libraries are loaded. Does not import Ray."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from pathlib import Path

from orchestrator.base.files import private_folder
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


_RAY_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_prestart_worker_first_driver": "0",  # otherwise Ray starts processes that no actor uses
    "RAY_CLIENT_MODE": "0",  # Ray 2.60 would set the same value
    "PYTHONBREAKPOINT": "",  # the same as an unset variable, which Ray 2.60 would set
}


def prepare_for(cluster: str) -> None:
    """Sets the environment variables that configure Ray and Ray Tune. Variables that the user has set keep their
    values, except that Ray Tune's SIGINT handler is always disabled. This function may be called several times.

    Call this function before this process starts a thread and before Ray is imported. If a variable is added to the
    environment while another thread reads the environment in C code, the process can crash. For this reason this
    function also sets the variables that Ray itself would add later.

    cluster: the address of a running cluster, or `local`. For `local`, also makes the authentication token; raises
    InputError as `keep_token_private` does.
    """
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    for name, value in _RAY_VARIABLES.items():
        os.environ.setdefault(name, value)
    if cluster == "local":
        keep_token_private()
    if "ray" not in sys.modules and (cluster == "local" or _has_token()):  # Ray reads this variable at its import
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray 2.60 would set the same value, but later


def _has_token() -> bool:
    """Returns whether this user has an authentication token for Ray clusters."""
    file = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or Path(file).is_file()


def is_writable(folder: Path) -> bool:
    """Returns whether this user may create files in a folder."""
    return os.access(folder, os.W_OK | os.X_OK)


def keep_token_private() -> None:
    """Makes the file of Ray's authentication token readable only by its owner. Creates a missing file with a new token.

    If Ray itself created the file, every user could read the token. Does nothing if RAY_AUTH_MODE disables tokens or if
    RAY_AUTH_TOKEN contains the token. If this user's home folder cannot be written, as in many containers, the file is
    in a private folder, and RAY_AUTH_TOKEN_PATH names it. Raises InputError if the file cannot be written.
    """
    if os.environ.get("RAY_AUTH_MODE", "token") != "token" or "RAY_AUTH_TOKEN" in os.environ:
        return
    chosen = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(chosen or Path.home() / ".ray" / "auth_token")
    if not chosen and not path.exists() and not is_writable(next(above for above in path.parents if above.exists())):
        path = private_folder("set RAY_AUTH_TOKEN_PATH to a file in a folder that you own") / "ray_auth_token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
            return
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        if not path.is_file():
            raise InputError(
                f"{path.parent}: is not a folder, but Ray's authentication token must be stored there; "
                "set RAY_AUTH_TOKEN_PATH to another file"
            ) from None
    except OSError as error:
        raise InputError(
            f"{path}: Ray's authentication token cannot be written ({error.strerror}); set RAY_AUTH_TOKEN_PATH to "
            "another file"
        ) from error
