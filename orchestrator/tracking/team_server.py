"""An MLflow server for several people and machines, on one host: its tables in PostgreSQL, a password for everyone.

All of it is in one folder and belongs to whoever starts it: the database, the secrets (readable by them alone) and,
unless they are elsewhere, the artifacts. PostgreSQL listens on a socket file alone, MLflow on 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.base.folder_lock import owned
from orchestrator.records.object_storage import check_url
from orchestrator.tracking.ui_server import MLFLOW_ENVIRONMENT, refuse_taken, until_interrupted
from supsup_core.errors import InputError, SupSupError

ADMIN = "admin"
"""The user that the server begins with."""

SHORTEST_PASSWORD = 12

_KNOWN = ("password1234", "password", "changeme", "adminadmin", "administrator", "mlflow")
"""Passwords that somebody has shipped as a default."""

_DATABASES = ("mlflow", "mlflow_auth")
_ROLE = "mlflow"

START_SECONDS = 60.0


def serve(folder: Path, port: int, artifacts: str | None) -> int:
    """Serve until interrupted; returns the exit code. artifacts: a URL to keep them at; None: in the folder."""
    if artifacts is not None:
        check_url(artifacts)
    refuse_taken(port)
    binaries = _binaries()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # PostgreSQL is not left behind
    with owned(folder, "server"), contextlib.ExitStack() as stack:
        folder.chmod(0o711)  # the database's own user passes through
        password = _admin_password(folder)
        socket = stack.enter_context(_postgres(folder, binaries))
        return _serve_mlflow(folder, port, artifacts, socket, password)


def _serve_mlflow(folder: Path, port: int, artifacts: str | None, socket: Path, password: str) -> int:
    settings = folder / "auth.ini"
    settings.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {_uri('mlflow_auth', socket)}\nadmin_username = {ADMIN}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {
        **os.environ, **MLFLOW_ENVIRONMENT,
        "MLFLOW_BACKEND_STORE_URI": _uri("mlflow", socket),
        "PGPASSWORD": _secret(folder, "postgres_password"),
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": _secret(folder, "cookie_secret"),
    }  # fmt: skip
    if "AWS_ENDPOINT_URL" in os.environ:
        environment.setdefault("MLFLOW_S3_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL"])
    command = [
        sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1", "--port",
        str(port), "--workers", "2", "--uvicorn-opts", "--log-level warning",
        "--artifacts-destination", artifacts or (folder / "artifacts").as_uri(),
    ]  # fmt: skip
    print(
        f"MLflow: http://127.0.0.1:{port}  (Ctrl-C ends it)\n"
        f"  user {ADMIN}, whose first password is in {folder / 'admin_password'}; others sign up at /signup\n"
        f"  sweeps write there with tracking=http://127.0.0.1:{port}, and MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD set",
        flush=True,
    )
    return until_interrupted(command, environment, folder)


def _uri(database: str, socket: Path) -> str:
    """Its password is in PGPASSWORD, where a list of processes does not show it."""
    return f"postgresql+psycopg://{_ROLE}@/{database}?host={socket}"


def _admin_password(folder: Path) -> str:
    """The password that the first user gets: MLFLOW_AUTH_ADMIN_PASSWORD, or one that is drawn. InputError for one that
    others would try first."""
    asked = os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD")
    if asked is None:
        return _secret(folder, "admin_password")
    if asked.lower() in _KNOWN or len(asked) < SHORTEST_PASSWORD:
        raise InputError(
            f"MLFLOW_AUTH_ADMIN_PASSWORD: a password that is known, or shorter than {SHORTEST_PASSWORD} characters; "
            "choose another, or leave it out to have one drawn"
        )
    return _secret(folder, "admin_password", asked)


def _secret(folder: Path, name: str, given: str | None = None) -> str:
    """The secret in a file that its user alone can read, written when there is none."""
    path = folder / name
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with open(handle, "w") as file:
            file.write(given or secrets.token_urlsafe(24))
    path.chmod(0o600)
    return given or path.read_text()


def _binaries() -> Path:
    """The folder of PostgreSQL's programs."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    if not folders:
        raise InputError("PostgreSQL is not here: apt-get install postgresql, or put its initdb on PATH")
    return folders[0]


def _database_user() -> dict[str, Any]:
    """Whom PostgreSQL runs as: oneself, but for root, whom it refuses."""
    if os.geteuid() != 0:
        return {}
    try:
        found = pwd.getpwnam("postgres")
    except KeyError:
        raise InputError(
            "PostgreSQL does not run as root, and no user postgres is here; start this as another"
        ) from None
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def _postgres(folder: Path, binaries: Path) -> Iterator[Path]:
    """Run the folder's PostgreSQL, with both databases, for a while; yields the folder of its socket."""
    user, data = _database_user(), folder / "postgres"
    password = _secret(folder, "postgres_password")
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "PGPASSWORD": password}
    with tempfile.TemporaryDirectory(prefix="supsup-") as scratch:  # a socket's path has room for 107 bytes
        socket = Path(scratch)

        def run(*words: object) -> str:
            return _run([str(word) for word in words], environment, user)

        if user:
            os.chown(socket, user["user"], user["group"])
        if not (data / "PG_VERSION").exists():
            data.mkdir(mode=0o700, exist_ok=True)
            given = socket / "password"
            given.write_text(password)
            if user:
                os.chown(data, user["user"], user["group"])
                os.chown(given, user["user"], user["group"])
            given.chmod(0o600)
            how = ("--username", _ROLE, "--pwfile", given, "--auth", "scram-sha-256", "-E", "UTF8")
            run(binaries / "initdb", "-D", data, *how)
            given.unlink()
        with (folder / "postgres.log").open("ab") as log:
            database = subprocess.Popen(
                [
                    str(binaries / "postgres"), "-D", str(data), "-c", "listen_addresses=", "-c",
                    f"unix_socket_directories={socket}", "-c", "unix_socket_permissions=0700",
                ],
                env=environment, stdout=log, stderr=log, start_new_session=True, cwd=socket, **user,
            )  # fmt: skip
        try:
            _until_ready(database, folder, lambda: run(binaries / "pg_isready", "-q", "-h", socket, "-U", _ROLE))
            as_role = ("-h", socket, "-U", _ROLE)
            there = run(binaries / "psql", *as_role, "-d", "postgres", "-Atc", "SELECT datname FROM pg_database")
            for name in _DATABASES:
                if name not in there.split():
                    run(binaries / "createdb", *as_role, name)
            yield socket
        finally:
            database.send_signal(signal.SIGINT)  # a fast shutdown, with nothing lost
            database.wait()


def _until_ready(database: subprocess.Popen[bytes], folder: Path, ask: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        if database.poll() is not None:
            told = (folder / "postgres.log").read_text(errors="replace").splitlines() or ["?"]
            raise SupSupError(f"PostgreSQL ended as it began: {told[-1]} (see {folder / 'postgres.log'})")
        try:
            ask()
        except SupSupError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _run(command: list[str], environment: dict[str, str], user: dict[str, Any]) -> str:
    """The output of one of PostgreSQL's programs; SupSupError with what it said when it failed."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, cwd="/", timeout=120, **user
    )
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise SupSupError(f"{Path(command[0]).name}: {told[-1]}")
    return done.stdout
