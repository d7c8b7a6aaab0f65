"""Runs MLflow's web server on the database of one output. It has one worker process and listens only on 127.0.0.1."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from orchestrator.base.output_folder import OutputFolder
from orchestrator.tracking.mlflow_address import tracking_uri
from orchestrator.tracking.moved_output import relocate
from supsup_core.errors import InputError

MLFLOW_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONWARNINGS": "ignore",  # hides warnings of the server's libraries
}
"""Environment variables of a server that runs no jobs, sends no telemetry and prints no warnings."""


def refuse_taken(port: int) -> None:
    """Raise InputError if another process listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"--port: {port} is already in use on 127.0.0.1 ({error.strerror}); choose another port"
            ) from error


def serve(output: OutputFolder, port: int) -> int:
    """Serve the MLflow pages of an output until interrupted, and return the exit code.

    Raises InputError if the output has no MLflow database or the port is in use.
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
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"MLflow: http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
    return until_interrupted(command, {**os.environ, **MLFLOW_ENVIRONMENT}, output.path)


def until_interrupted(command: list[str], environment: dict[str, str], folder: Path) -> int:
    """Run the server command until it ends or this process is interrupted, and return the exit code."""
    server = subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait()
        return 0
