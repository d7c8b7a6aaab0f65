"""Runs an MLflow server for a team on one host, with PostgreSQL as its database and a password for every user.

One folder holds the database, the secrets and, unless a URL is given, the artifacts. The folder belongs to the user who
starts the server, and no other user can read the secrets. PostgreSQL listens only on a Unix socket, and MLflow only on
127.0.0.1.
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
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from orchestrator.base.folder_lock import owned
from orchestrator.records.object_storage import check_url
from orchestrator.tracking.ui_server import MLFLOW_ENVIRONMENT, refuse_taken, until_interrupted
from supsup_core.errors import InputError, SupSupError

ADMIN = "admin"
"""The name of the first user, who is the administrator."""

SHORTEST_PASSWORD = 12
"""The minimum number of characters of the first user's password."""

_DEFAULT_PASSWORDS = ("password1234", "password", "changeme", "adminadmin", "administrator", "mlflow")
"""Well-known default passwords, which are refused."""

_DATABASES = ("mlflow", "mlflow_auth")
_ROLE = "mlflow"

START_SECONDS = 60.0
"""How many seconds PostgreSQL may take to start."""


class _SystemUser(NamedTuple):
    """A user of the operating system, as the arguments with which subprocess runs a program as that user.

    All fields are None for the current user.
    """

    uid: int | None
    gid: int | None
    extra_groups: list[int] | None


@dataclass(frozen=True)
class _Postgres:
    """Runs PostgreSQL's programs. `binaries`: the folder of the programs. `user`: the user who runs them."""

    binaries: Path
    user: _SystemUser
    environment: dict[str, str]

    def run(self, program: str, *arguments: object) -> str:
        """Run a program and return its output. Raises SupSupError with the program's last message if it fails."""
        done = subprocess.run(
            [str(self.binaries / program), *map(str, arguments)], check=False, env=self.environment, cwd="/",
            capture_output=True, text=True, timeout=120,
            user=self.user.uid, group=self.user.gid, extra_groups=self.user.extra_groups,
        )  # fmt: skip
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            raise SupSupError(f"{program}: {lines[-1]}")
        return done.stdout

    def start(self, data: Path, socket: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the database server in the data folder `data`, with its Unix socket in the folder `socket`."""
        return subprocess.Popen(
            [
                str(self.binaries / "postgres"), "-D", str(data), "-c", "listen_addresses=", "-c",
                f"unix_socket_directories={socket}", "-c", "unix_socket_permissions=0700",
            ],
            env=self.environment, stdout=log, stderr=log, start_new_session=True, cwd=socket,
            user=self.user.uid, group=self.user.gid, extra_groups=self.user.extra_groups,
        )  # fmt: skip

    def own(self, *paths: Path) -> None:
        """Change the owner of files and folders to the user who runs PostgreSQL."""
        if self.user.uid is not None and self.user.gid is not None:
            for path in paths:
                os.chown(path, self.user.uid, self.user.gid)


def serve(folder: Path, port: int, artifacts: str | None) -> int:
    """Run the server until it is interrupted, and return the exit code.

    folder: the server's folder. artifacts: the URL of the artifacts; None means a folder inside `folder`. Creates the
    folder, the database and the secrets if they do not exist. Raises InputError if the port is in use, if PostgreSQL is
    not installed, or if the first user's password is a default password or too short.
    """
    if artifacts is not None:
        check_url(artifacts)
    refuse_taken(port)
    binaries = _binaries()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # raises KeyboardInterrupt, so that PostgreSQL stops too
    with owned(folder, "server"), contextlib.ExitStack() as stack:
        folder.chmod(0o711)  # the user who runs PostgreSQL must reach its folder
        password = _admin_password(folder)
        socket = stack.enter_context(_postgres(folder, binaries))
        return _serve_mlflow(folder, port, artifacts, socket, password)


def _serve_mlflow(folder: Path, port: int, artifacts: str | None, socket: Path, password: str) -> int:
    """Run MLflow until interrupted. socket: the folder of PostgreSQL's socket. password: the first user's password."""
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
        f"  user {ADMIN}, whose initial password is in {folder / 'admin_password'}; others sign up at /signup\n"
        f"  sweeps write to this server with tracking=http://127.0.0.1:{port}; set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD",
        flush=True,
    )
    return until_interrupted(command, environment, folder)


def _uri(database: str, socket: Path) -> str:
    """Returns the URI of a database, without a password. The environment variable PGPASSWORD holds the password, so
    that a list of processes does not show it."""
    return f"postgresql+psycopg://{_ROLE}@/{database}?host={socket}"


def _admin_password(folder: Path) -> str:
    """Returns the first user's password: MLFLOW_AUTH_ADMIN_PASSWORD if it is set, else a random one.

    Writes a new password to a file in the folder. Raises InputError for a default or too short password.
    """
    asked = os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD")
    if asked is None:
        return _secret(folder, "admin_password")
    if asked.lower() in _DEFAULT_PASSWORDS or len(asked) < SHORTEST_PASSWORD:
        raise InputError(
            f"MLFLOW_AUTH_ADMIN_PASSWORD: is a default password or has fewer than {SHORTEST_PASSWORD} characters; "
            "choose another password, or unset the variable to get a random one"
        )
    return _secret(folder, "admin_password", asked)


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


def _binaries() -> Path:
    """Returns the folder of PostgreSQL's programs: the folder of `initdb` on PATH, else the newest version of Debian's
    packages. Raises InputError if PostgreSQL is not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    if not folders:
        raise InputError(
            "PostgreSQL is not installed: run `apt-get install postgresql`, or put the folder of its initdb on PATH"
        )
    return folders[0]


def _database_user() -> _SystemUser:
    """Returns the user who runs PostgreSQL: the current user, or `postgres` if the current user is root.

    PostgreSQL refuses to run as root. Raises InputError if the user `postgres` is needed but does not exist.
    """
    if os.geteuid() != 0:
        return _SystemUser(None, None, None)
    try:
        found = pwd.getpwnam("postgres")
    except KeyError:
        raise InputError(
            "PostgreSQL refuses to run as root, and there is no user `postgres`; start the server as another user"
        ) from None
    return _SystemUser(found.pw_uid, found.pw_gid, [])


@contextlib.contextmanager
def _postgres(folder: Path, binaries: Path) -> Iterator[Path]:
    """Run PostgreSQL with MLflow's two databases while the `with` block runs. Yields the socket's folder."""
    password = _secret(folder, "postgres_password")
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "PGPASSWORD": password}
    postgres = _Postgres(binaries, _database_user(), environment)
    with tempfile.TemporaryDirectory(prefix="supsup-") as scratch:  # the path of a socket has at most 107 bytes
        socket, data = Path(scratch), folder / "postgres"
        postgres.own(socket)
        if not (data / "PG_VERSION").exists():
            _initialise(postgres, data, socket / "password", password)
        with (folder / "postgres.log").open("ab") as log:
            database = postgres.start(data, socket, log)
        try:
            _wait_until_ready(postgres, database, folder, socket)
            _create_databases(postgres, socket)
            yield socket
        finally:
            database.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown ends sessions and keeps committed data
            database.wait()


def _initialise(postgres: _Postgres, data: Path, password_file: Path, password: str) -> None:
    """Create PostgreSQL's folder `data`. password_file: a temporary file from which initdb reads the password."""
    data.mkdir(mode=0o700, exist_ok=True)
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    postgres.own(data, password_file)
    options = ("--username", _ROLE, "--pwfile", password_file, "--auth", "scram-sha-256", "-E", "UTF8")
    postgres.run("initdb", "-D", data, *options)
    password_file.unlink()


def _wait_until_ready(postgres: _Postgres, database: subprocess.Popen[bytes], folder: Path, socket: Path) -> None:
    """Wait until PostgreSQL accepts connections.

    Raises SupSupError if PostgreSQL stops, or if it does not accept connections within START_SECONDS.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        if database.poll() is not None:
            log = folder / "postgres.log"
            lines = log.read_text(errors="replace").splitlines() or ["no message"]
            raise SupSupError(f"PostgreSQL stopped while it started: {lines[-1]} (see {log})")
        try:
            postgres.run("pg_isready", "-q", "-h", socket, "-U", _ROLE)
        except SupSupError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _create_databases(postgres: _Postgres, socket: Path) -> None:
    """Create MLflow's two databases, one for runs and one for users, if they do not exist."""
    as_role = ("-h", socket, "-U", _ROLE)
    names = postgres.run("psql", *as_role, "-d", "postgres", "-Atc", "SELECT datname FROM pg_database").split()
    for name in _DATABASES:
        if name not in names:
            postgres.run("createdb", *as_role, name)
