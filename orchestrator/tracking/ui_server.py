"""Runs MLflow's web server on the database of one output.

The server has one worker process and listens only on 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
from filelock import FileLock

from orchestrator.base.output_folder import OutputFolder
from orchestrator.base.signals import stop_requests
from orchestrator.base.wording import say
from orchestrator.tracking.mlflow_address import tracking_uri
from orchestrator.tracking.moved_output import relocate
from supsup_core.errors import InputError, MachineError

MLFLOW_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONWARNINGS": "ignore",  # hides warnings of the server's libraries
}
"""Environment variables of a server that runs no jobs, sends no telemetry and prints no warnings."""

STOP_SIGNALS, STOP_SECONDS = (signal.SIGTERM, signal.SIGKILL), 20.0
"""The signals that end MLflow's processes, and the seconds that requests in progress get after each signal."""

POLL_SECONDS = 0.2
"""The seconds between two checks of the processes of a server."""


def refuse_taken(port: int) -> None:
    """Raise InputError if this process cannot listen on this port of 127.0.0.1.

    The error names the process that uses the port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise InputError(
                    f"--port: {port} cannot be used on 127.0.0.1 ({error.strerror}); choose a port above 1023"
                ) from error
            raise InputError(
                f"--port: {port} is already in use on 127.0.0.1{_listener(port)}; choose another port"
            ) from error


def _listener(port: int) -> str:
    """Returns the words ` by process ID (NAME)` for the process that listens on a port, or "" for an unknown
    process."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""


def end_processes(processes: Iterable[psutil.Process], signals: Iterable[int], seconds: float) -> list[psutil.Process]:
    """Ends processes: sends each of `signals` in turn, with a wait of up to `seconds`, to the processes that still run.

    Returns the processes that still run at the end. Sends no signal to a new process that has the id of an ended
    process.
    """
    alive = list(processes)
    for number in signals:
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        deadline = time.monotonic() + seconds
        while (alive := [process for process in alive if _is_alive(process)]) and time.monotonic() < deadline:
            time.sleep(0.05)
    return alive


def _is_alive(process: psutil.Process) -> bool:
    """Returns whether a process runs. A zombie does not count as running."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    return False


def serve(output: OutputFolder, port: int) -> int:
    """Serve the MLflow pages of an output until interrupted, and return the exit code.

    Raises InputError if the output has no MLflow database or the port is in use, and MachineError if the server ends.
    """
    if not output.mlflow.database.exists():
        raise InputError(
            f"{output.path}: has no MLflow database; run a sweep first, or set output=DIR to the output of a sweep"
        )
    refuse_taken(port)
    with FileLock(output.mlflow.lock_file):
        relocate(output.mlflow)
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--uvicorn-opts", "--log-level warning",
        "--backend-store-uri", tracking_uri(output.mlflow),
        "--artifacts-destination", output.mlflow.artifacts.as_uri(),
    ]  # fmt: skip
    say(f"MLflow: http://127.0.0.1:{port}  (Ctrl-C ends the server)", flush=True)
    code = until_stopped(command, {**os.environ, **MLFLOW_ENVIRONMENT}, output.path)
    if code is None:
        return 0
    refuse_taken(port)  # another process may have taken the port in the meantime
    raise MachineError(f"MLflow's server ended (exit code {code}); read its messages above, then run `supsup ui` again")


def until_stopped(command: list[str], environment: dict[str, str], folder: Path) -> int | None:
    """Run the server command until a signal stops this process.

    Returns the exit code if the command ends first, else None.
    """
    with stop_requests() as is_stopping:
        try:
            server = subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True)
        except OSError as error:
            raise MachineError(f"{command[0]}: cannot be started ({error.strerror})") from error
        while (code := server.poll()) is None and not is_stopping():
            time.sleep(POLL_SECONDS)
        if code is None:
            main = psutil.Process(server.pid)
            end_processes([main, *main.children(recursive=True)], STOP_SIGNALS, STOP_SECONDS)
            server.wait()
        return code
