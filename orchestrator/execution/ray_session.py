"""Connects to a Ray cluster: a running one, or a local one that this process starts."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import ray

from orchestrator.base.environment import usable_cpus
from orchestrator.base.files import is_utf8, private_folder
from orchestrator.base.library_internals import ray_versions_in
from orchestrator.base.signals import STOP_SIGNALS
from orchestrator.base.wording import first_line
from orchestrator.execution.ray_preparation import is_writable, prepare_for
from supsup_core.errors import InputError, SupSupError

if TYPE_CHECKING:  # would load torch, which a trial's process does not need
    from orchestrator.spec.sweep_config import Resources

log = logging.getLogger("supsup")

ATTEMPTS = 3
"""The number of attempts to start Ray on this machine before the command fails. If Ray does not
start, Ray itself gives up after about 30 seconds, and the command makes the next attempt."""

PATIENCE_SECONDS = 15.0
"""If Ray takes longer than these seconds to start or to answer, a message says that the command still waits."""


_handlers: dict[signal.Signals, Any] = {}
"""The signal handlers that this process had for STOP_SIGNALS before Ray started. Ray and Ray Tune replace some of these
handlers."""


def restore_handlers() -> None:
    """Sets the handlers of STOP_SIGNALS that this process had before Ray started."""
    for number, handler in _handlers.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def connected(cluster: str, resources: Resources) -> Iterator[None]:
    """Connects to a Ray cluster, and disconnects when the `with` block ends.

    cluster: the address of a running cluster, or `local`. For `local`, this function starts a cluster on this machine,
    with enough CPUs for the workers of one training group. The end of the block shuts this cluster down.

    Raises InputError if no cluster can be reached at the address, or if the cluster refuses the authentication token.
    Raises InputError also if the cluster runs other versions of Ray or Python. Raises SupSupError if Ray does not start
    on this machine.
    """
    prepare_for(cluster)
    _handlers.update({number: signal.getsignal(number) for number in STOP_SIGNALS})
    with tempfile.TemporaryDirectory(prefix="supsup-") as empty:
        if cluster == "local":
            _start(resources, empty)
        else:
            _connect(cluster, empty)
        try:
            yield
        finally:
            _shut_down()


def _shut_down() -> None:
    """Disconnects from the cluster, and ends the processes of a local cluster.

    No other thread may free an object of Ray meanwhile, because Ray 2.60 would then end this process. Python's garbage
    collection, which can run in any thread, is therefore switched off. For the same reason, Ray cannot be shut down in
    a thread while this process goes on.
    """
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


_LONGEST_FOLDER = 38
"""The longest path, in bytes, of Ray's folder: the path of a Unix socket has at most 107 bytes, and Ray appends 64."""


def own_folder() -> Path | None:
    """Returns the folder for Ray's sockets and logs on this machine. Returns None if Ray's own choice can be used.

    Ray chooses the folder `ray` in RAY_TMPDIR, TMPDIR or /tmp. Ray cannot use a folder whose path is too long or not
    UTF-8, or that belongs to another user. Raises InputError if no folder can be used.
    """
    chosen = os.environ.get("RAY_TMPDIR")
    usual = _usual_folder()
    is_usable = len(os.fsencode(usual)) <= _LONGEST_FOLDER and is_utf8(usual)
    if is_usable and is_writable(usual if usual.exists() else usual.parent):
        return None
    remedy = f"set RAY_TMPDIR to a folder that you own and whose path has at most {_LONGEST_FOLDER - 4} bytes"
    if chosen:
        raise InputError(
            f"RAY_TMPDIR: Ray cannot use {usual}, because its path is too long or not UTF-8, or because the folder is "
            f"not writable; {remedy}"
        )
    return private_folder(f"Ray's sockets need a folder with a short path; {remedy}")


def _usual_folder() -> Path:
    """Returns the folder that Ray itself chooses for its sockets and logs."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray"


def _start(resources: Resources, empty: str) -> None:
    """Starts a cluster on this machine, with enough CPUs for the workers of one training group.

    Tries again if Ray does not start, for example because the machine is busy. empty: see `_init`. Raises SupSupError
    if the last attempt fails.
    """
    num_cpus = max(resources.num_workers * resources.threads, usable_cpus())
    own: dict[str, object] = {"num_cpus": num_cpus, "include_dashboard": False}
    folder = own_folder()
    if folder is not None:
        own["_temp_dir"] = str(folder)
    for number in range(1, ATTEMPTS + 1):
        before = set(psutil.Process().children(recursive=True))
        try:
            _init("local", own, empty, "Ray has not started yet")
        except Exception as error:
            _end_attempt(before)
            if number == ATTEMPTS:
                logs = (folder or _usual_folder()) / "session_latest" / "logs"
                raise SupSupError(
                    f"Ray did not start on this machine in {ATTEMPTS} attempts ({first_line(error)}); wait until the "
                    f"machine is less busy, read Ray's logs in {logs}, or add --local to run without Ray"
                ) from error
            log.warning(
                "Ray did not start (%s); trying again, attempt %d of %d", first_line(error), number + 1, ATTEMPTS
            )
        else:
            return


def _end_attempt(before: set[psutil.Process]) -> None:
    """Kills the processes that a failed start of Ray has left. before: the child processes of this process before the
    start.

    Ray itself would end the killed processes only at the end of this process.
    """
    with contextlib.suppress(Exception):  # Ray may be in any state
        ray.shutdown()
    programs = str(Path(ray.__file__).parent)
    killed = []
    for process in set(psutil.Process().children(recursive=True)) - before:
        with contextlib.suppress(psutil.Error):  # the process has ended
            if programs in " ".join(process.cmdline()):
                process.kill()
                killed.append(process)
    psutil.wait_procs(killed, timeout=10)


def _connect(cluster: str, empty: str) -> None:
    """Connects to a running cluster. empty: see `_init`. Raises InputError as `connected` does."""
    try:
        _init(cluster, {}, empty, f"the Ray cluster at {cluster} has not answered yet")
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        versions = ray_versions_in(error)
        if versions is not None:
            raise InputError(
                f"--address: the cluster at {cluster} runs Ray {versions.cluster_ray} and Python "
                f"{versions.cluster_python}, but this command runs Ray {versions.own_ray} and Python "
                f"{versions.own_python}; install the versions of constraints.txt on every node, and start the cluster "
                "again"
            ) from error
        raise InputError(
            f"--address: no Ray cluster can be reached at {cluster} ({first_line(error)}); run this command on a node "
            "of the cluster; check the address with `ray status --address ADDRESS`; check the token file that "
            "RAY_AUTH_TOKEN_PATH names; or remove --address to start Ray on this machine"
        ) from error


def _init(cluster: str, own: Mapping[str, object], empty: str, waiting: str) -> None:
    """Calls ray.init. own: arguments for a cluster that this process starts. waiting: the start of the warning that is
    logged if Ray is slow.

    empty: an empty folder, which is the working folder during the call. Ray's processes import modules from the folder
    in which Ray was started. In the user's folder, a file such as `random.py` would replace a module of Python.
    """
    notice = threading.Timer(
        PATIENCE_SECONDS, log.warning, ("%s, after %.0f s; waiting longer", waiting, PATIENCE_SECONDS)
    )
    notice.daemon = True
    notice.start()
    here = os.open(".", getattr(os, "O_PATH", os.O_RDONLY))  # no path, because Ray may replace the folder of a job
    os.chdir(empty)
    try:
        ray.init(address=cluster, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **own)
    finally:
        notice.cancel()
        restore_handlers()  # ray.init has replaced some handlers
        os.fchdir(here)
        os.close(here)
