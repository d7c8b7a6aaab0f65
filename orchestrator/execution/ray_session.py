"""Connects to a Ray cluster: a running one, or a local one that this process starts."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from orchestrator.base.files import private_folder, working_folder
from orchestrator.base.signals import STOP_SIGNALS
from orchestrator.spec.sweep_config import Resources
from supsup_core.errors import InputError


def configure_ray() -> None:
    """Sets environment variables that configure Ray and Ray Tune. Call this function before Ray starts. Variables that
    the user has set keep their values, except that Ray Tune's SIGINT handler is always disabled."""
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")


_handlers: dict[signal.Signals, Any] = {}
"""The handlers of STOP_SIGNALS before Ray started. Ray and Ray Tune replace some of them."""


def restore_handlers() -> None:
    """Sets the handlers of STOP_SIGNALS that this process had before Ray started."""
    for number, handler in _handlers.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def connected(cluster: str, resources: Resources) -> Iterator[None]:
    """Connects to a Ray cluster, and disconnects when the `with` block ends.

    cluster: the address of a running cluster, or `local`. For `local`, this function starts a cluster on this machine,
    with enough CPUs for the workers of one training group, and shuts the cluster down when the block ends.

    Raises InputError if no cluster can be reached at the address, or if the cluster refuses the authentication token.
    """
    _handlers.update({number: signal.getsignal(number) for number in STOP_SIGNALS})
    own: dict[str, object] = {}
    if cluster == "local":
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # else Ray starts processes that no actor uses
        num_cpus = max(resources.num_workers * resources.threads, os.cpu_count() or 1)
        own = {"num_cpus": num_cpus, "include_dashboard": False}
        if (folder := own_folder()) is not None:
            own["_temp_dir"] = str(folder)
        keep_token_private()
    with tempfile.TemporaryDirectory(prefix="supsup-") as empty:
        _init(cluster, own, empty)
        restore_handlers()  # ray.init has replaced some
        try:
            yield
        finally:
            ray.shutdown()


_LONGEST_FOLDER = 38
"""The longest path, in bytes, of Ray's folder: the path of a Unix socket has at most 107 bytes, and Ray appends 64."""


def own_folder() -> Path | None:
    """Returns the folder for Ray's sockets and logs on this machine. Returns None if Ray's own choice can be used.

    Ray chooses the folder `ray` in RAY_TMPDIR, TMPDIR or /tmp. This folder cannot be used if its path is too long, or
    if it belongs to another user. Raises InputError if no folder can be used.
    """
    chosen = os.environ.get("RAY_TMPDIR")
    usual = Path(chosen or tempfile.gettempdir()) / "ray"
    if len(os.fsencode(usual)) <= _LONGEST_FOLDER and _is_writable(usual if usual.exists() else usual.parent):
        return None
    remedy = f"set RAY_TMPDIR to a folder of yours whose path has at most {_LONGEST_FOLDER - 4} bytes"
    if chosen:
        raise InputError(f"RAY_TMPDIR: Ray cannot use {usual}, which is too long or cannot be written; {remedy}")
    return private_folder(f"Ray's sockets need a short folder; {remedy}")


def _is_writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _init(cluster: str, own: Mapping[str, object], empty: str) -> None:
    """Calls ray.init. own: arguments for a cluster that this process starts. Raises InputError as `connected` does.

    empty: an empty folder, which is the working folder during the call. Ray's processes import from the folder in which
    Ray was started first, so a file of the user's there, such as `random.py`, would replace a module of Python.
    """
    here = working_folder()
    os.chdir(empty)
    try:
        ray.init(address=cluster, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **own)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        if cluster == "local":
            raise
        raise InputError(
            f"--address: no Ray cluster can be reached at {cluster} ({str(error).splitlines()[0]}); "
            "check the address with `ray status --address ADDRESS`, check the token file that RAY_AUTH_TOKEN_PATH "
            "names, or remove --address to start Ray on this machine"
        ) from error
    finally:
        if here is not None:
            os.chdir(here)


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
    if not chosen and not path.exists() and not _is_writable(next(above for above in path.parents if above.exists())):
        path = private_folder("set RAY_AUTH_TOKEN_PATH to a file of yours") / "ray_auth_token"
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
                f"{path.parent}: is not a folder, but Ray's token must be stored there; "
                "set RAY_AUTH_TOKEN_PATH to another file"
            ) from None
    except OSError as error:
        raise InputError(
            f"{path}: Ray's token cannot be written ({error.strerror}); set RAY_AUTH_TOKEN_PATH to another file"
        ) from error
