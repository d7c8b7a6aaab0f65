"""Runs an MLflow server for a team on one host, with PostgreSQL as its database and a password for every user.

One folder holds the database, the secrets and, unless a URL is given, the artifacts. The folder belongs to the user who
starts the server, and no other user can read the secrets. PostgreSQL listens only on a Unix socket, and MLflow only on
127.0.0.1.

If the server's process is killed, MLflow and PostgreSQL run on. The next server on the folder ends both and then starts
both again. An environment variable that identifies the folder marks MLflow's processes, so that the next server finds
these processes.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from orchestrator.base.folder_lock import SERVER, owned
from orchestrator.base.signals import stop_requests
from orchestrator.base.wording import say
from orchestrator.records.object_storage import check_url
from orchestrator.tracking.team_database import Database, find_binaries, running_database, stop_orphan
from orchestrator.tracking.ui_server import (
    MLFLOW_ENVIRONMENT,
    POLL_SECONDS,
    STOP_SECONDS,
    STOP_SIGNALS,
    end_processes,
    refuse_taken,
)
from supsup_core.errors import InputError, MachineError

ADMIN = "admin"
"""The name of the first user, who is the administrator."""

SHORTEST_PASSWORD = 12
"""The minimum number of characters of the first user's password."""

_DEFAULT_PASSWORDS = ("password1234", "password", "changeme", "adminadmin", "administrator", "mlflow")
"""Well-known default passwords, which are refused."""

START_SECONDS = 180.0
"""The number of seconds that MLflow may take until it answers. MLflow itself has no such limit: it restarts a failing
worker forever."""

_MARK = "SUPSUP_SERVER_FOLDER"
"""The environment variable that marks MLflow's processes. The value of the variable identifies the folder (see
`_mark`)."""


def serve(folder: Path, port: int, artifacts: str | None) -> int:
    """Run the server until it is interrupted, and return the exit code.

    folder: the server's folder. artifacts: the URL of the artifacts; None means a folder inside `folder`. Creates the
    folder, the database and the secrets if they do not exist. Ends MLflow and PostgreSQL if a killed server left them.
    Raises InputError if the port is in use, if another process runs this server, or if PostgreSQL is not installed.
    Raises InputError also if the first user's password is a default password or too short. Raises MachineError if
    MLflow or PostgreSQL fails.
    """
    if artifacts is not None:
        check_url(artifacts)
    binaries = find_binaries()
    asked = _asked_password()
    if not folder.exists() or not _marked(folder):
        refuse_taken(port)  # before the folder is created; an orphan on this folder may keep the port until it is ended
    with stop_requests() as is_stopping, owned(folder, SERVER):
        pause = _pausing(is_stopping)
        try:
            folder.chmod(0o711)  # the user who runs PostgreSQL must reach its folder
            _end_orphans(folder)
            refuse_taken(port)
            password = _secret(folder, "admin_password", asked)
            with running_database(folder, binaries, _secret(folder, "postgres_password"), pause) as database:
                return _serve_mlflow(folder, port, artifacts, database, password, pause)
        except KeyboardInterrupt:
            return 0
        except OSError as error:  # for example, the disk is full
            raise MachineError(
                f"{folder}: the server cannot run ({error}); correct the cause, then start the server again"
            ) from error


def _pausing(is_stopping: Callable[[], bool]) -> Callable[[], None]:
    """Returns a function that waits POLL_SECONDS, and raises KeyboardInterrupt if the server is to stop."""

    def pause() -> None:
        time.sleep(POLL_SECONDS)
        if is_stopping():
            raise KeyboardInterrupt

    return pause


def _serve_mlflow(
    folder: Path, port: int, artifacts: str | None, database: Database, password: str, pause: Callable[[], None]
) -> int:
    """Run MLflow until `pause` raises KeyboardInterrupt. password: the first user's password.

    Raises MachineError if MLflow or PostgreSQL ends, or if MLflow does not answer within START_SECONDS.
    """
    log = folder / "mlflow.log"
    command = [
        sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1", "--port",
        str(port), "--workers", "2", "--uvicorn-opts", "--log-level warning",
        "--artifacts-destination", artifacts or (folder / "artifacts").as_uri(),
    ]  # fmt: skip
    environment = _environment(folder, database, password)
    log.touch(mode=0o600)
    with log.open("ab") as file:  # no signal can interrupt these lines (see stop_requests)
        server = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=file, stderr=file, start_new_session=True
        )
    try:
        deadline, answers = time.monotonic() + START_SECONDS, False
        while server.poll() is None and database.process.poll() is None:
            if not answers and (answers := _answers(port)):
                _print_address(folder, port)
            if not answers and time.monotonic() > deadline:
                raise MachineError(f"MLflow does not answer after {START_SECONDS:.0f} s; read {log}")
            pause()
    finally:
        _end_mlflow(folder)
        server.wait()
    if database.process.poll() is not None:
        raise MachineError(f"PostgreSQL ended; read {folder / 'postgres.log'}, then start the server again")
    refuse_taken(port)  # another process may have taken the port in the meantime
    raise MachineError(f"MLflow ended; read {log}, correct the cause, then start the server again")


def _environment(folder: Path, database: Database, password: str) -> dict[str, str]:
    """Returns the environment variables of MLflow, and writes its settings file.

    Passwords are passed in these variables, because a list of processes shows arguments.
    """
    settings = folder / "auth.ini"
    settings.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {database.uri('mlflow_auth')}\nadmin_username = {ADMIN}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {
        **os.environ, **MLFLOW_ENVIRONMENT,
        "MLFLOW_BACKEND_STORE_URI": database.uri("mlflow"),
        "PGPASSWORD": _secret(folder, "postgres_password"),
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": _secret(folder, "cookie_secret"),
        _MARK: _mark(folder),
    }  # fmt: skip
    if "AWS_ENDPOINT_URL" in os.environ:
        environment.setdefault("MLFLOW_S3_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL"])
    return environment


def _print_address(folder: Path, port: int) -> None:
    say(
        f"MLflow: http://127.0.0.1:{port}  (Ctrl-C ends the server)\n"
        f"  user {ADMIN}, whose initial password is in {folder / 'admin_password'}, adds other users at /signup\n"
        f"  sweeps write to this server with tracking=http://127.0.0.1:{port}; set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD",
        flush=True,
    )


def _answers(port: int) -> bool:
    """Returns whether MLflow answers requests."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _mark(folder: Path) -> str:
    """Returns a text that identifies a folder. Moving the folder does not change the text, but a copy has another
    text."""
    found = folder.stat()
    return f"{found.st_dev}:{found.st_ino}"


def _marked(folder: Path) -> list[psutil.Process]:
    """Returns the processes of MLflow that a server on this folder started and that still run."""
    mark, user, found = _mark(folder), os.getuid(), []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # ended, or belongs to another user
            if process.uids().real == user and process.environ().get(_MARK) == mark:
                found.append(process)
    return found


def _end_mlflow(folder: Path) -> bool:
    """Ends the processes of MLflow that a server on this folder started. Returns whether there were any such
    processes."""
    had_any = False
    while marked := _marked(folder):
        had_any = True
        if alive := end_processes(marked, STOP_SIGNALS, STOP_SECONDS):
            raise MachineError(
                f"process {alive[0].pid} of MLflow does not end; kill this process, then start the server again"
            )
    return had_any


def _end_orphans(folder: Path) -> None:
    """Ends MLflow and PostgreSQL if a killed server left them. All committed data are kept.

    The caller must hold the folder's lock. The lock proves that no server is running, so these processes are orphans.
    """
    names = [name for name, end in (("MLflow", _end_mlflow), ("PostgreSQL", stop_orphan)) if end(folder)]
    if names:
        say(f"ended {' and '.join(names)}, which a killed server on {folder} had left running", flush=True)


def _asked_password() -> str | None:
    """Returns the first user's password in MLFLOW_AUTH_ADMIN_PASSWORD, or None if the variable is not set.

    Raises InputError for a default or too short password.
    """
    asked = os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD")
    if asked is not None and (asked.lower() in _DEFAULT_PASSWORDS or len(asked) < SHORTEST_PASSWORD):
        raise InputError(
            f"MLFLOW_AUTH_ADMIN_PASSWORD: is a default password or has fewer than {SHORTEST_PASSWORD} characters; "
            "choose another password, or unset the variable to get a random one"
        )
    return asked


def _secret(folder: Path, name: str, given: str | None = None) -> str:
    """Returns `given`, or the secret in the file `name` of the folder if `given` is None.

    If the file does not exist, creates it with `given` or a random secret. Only the file's owner can read the file.
    """
    path = folder / name
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with open(handle, "w") as file:
            file.write(given or secrets.token_urlsafe(24))
    path.chmod(0o600)
    return given or path.read_text()
