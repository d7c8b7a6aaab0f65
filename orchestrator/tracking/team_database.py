"""Runs PostgreSQL for a team's MLflow server. PostgreSQL listens only on a Unix socket.

PostgreSQL's processes survive if the server's process is killed. The next server first stops these processes with
signals after which PostgreSQL keeps all committed data.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from orchestrator.tracking.ui_server import end_processes
from supsup_core.errors import InputError, MachineError, SupSupError

DATABASES = ("mlflow", "mlflow_auth")
"""MLflow's databases: one for runs and one for users."""

ROLE = "mlflow"
"""The name under which MLflow connects to PostgreSQL."""

START_SECONDS = 300.0
"""The number of seconds that PostgreSQL may take to start. After a power failure, PostgreSQL first recovers its
data."""

STOP_SECONDS = 60.0
"""The number of seconds that PostgreSQL may take to stop after each signal."""

_STOP_SIGNALS = (signal.SIGINT, signal.SIGQUIT)
"""The signals for PostgreSQL's fast shutdown, which ends sessions, and for its immediate shutdown, after which
PostgreSQL recovers at the next start. Both kinds of shutdown keep all committed data."""

_PROGRAM_SECONDS = 120
"""The number of seconds that one of PostgreSQL's programs, such as initdb, may take."""

_LONGEST_SOCKET_ROOT = 70
"""The longest path, in bytes, of the folder in which the socket's folder is created. The path of a socket has at most
107 bytes."""

_SOCKET_PREFIX = "supsup-"
"""The beginning of the name of the socket's folder."""


class _SystemUser(NamedTuple):
    """A user of the operating system, as the arguments with which subprocess runs a program as that user.

    All fields are None for the current user.
    """

    uid: int | None
    gid: int | None
    extra_groups: list[int] | None


@dataclass(frozen=True)
class _Postgres:
    """Runs PostgreSQL's programs. `binaries`: the folder of the programs. `user`: the user who runs the programs."""

    binaries: Path
    user: _SystemUser
    environment: dict[str, str]

    def run(self, program: str, *arguments: object) -> str:
        """Run a program and return its output. Raises SupSupError with the program's last message if the program
        fails."""
        try:
            done = subprocess.run(
                [str(self.binaries / program), *map(str, arguments)], check=False, env=self.environment, cwd="/",
                capture_output=True, text=True, timeout=_PROGRAM_SECONDS,
                user=self.user.uid, group=self.user.gid, extra_groups=self.user.extra_groups,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise SupSupError(f"{program}: does not end within {_PROGRAM_SECONDS} s") from None
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            raise SupSupError(f"{program}: {lines[-1]}")
        return done.stdout

    def start(self, data: Path, socket: Path, log: Path) -> subprocess.Popen[bytes]:
        """Start the database server in the data folder `data`, with its Unix socket in the folder `socket`."""
        with log.open("ab") as file:
            return subprocess.Popen(
                [
                    str(self.binaries / "postgres"), "-D", str(data), "-c", "listen_addresses=", "-c",
                    f"unix_socket_directories={socket}", "-c", "unix_socket_permissions=0700",
                ],
                env=self.environment, stdout=file, stderr=file, start_new_session=True, cwd=socket,
                user=self.user.uid, group=self.user.gid, extra_groups=self.user.extra_groups,
            )  # fmt: skip

    def own(self, *paths: Path) -> None:
        """Change the owner of files and folders to the user who runs PostgreSQL."""
        if self.user.uid is not None and self.user.gid is not None:
            for path in paths:
                os.chown(path, self.user.uid, self.user.gid)


@dataclass(frozen=True)
class Database:
    """A running PostgreSQL. `socket`: the folder of its Unix socket."""

    process: subprocess.Popen[bytes]
    socket: Path

    def uri(self, database: str) -> str:
        """Returns the URI of a database, without a password. The environment variable PGPASSWORD holds the password, so
        that a list of processes does not show it."""
        return f"postgresql+psycopg://{ROLE}@/{database}?host={self.socket}"


def find_binaries() -> Path:
    """Returns the folder of PostgreSQL's programs: the folder of `initdb` on PATH, else the newest version of Debian's
    packages. Raises InputError if PostgreSQL is not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    if not folders:
        raise InputError(
            "PostgreSQL is not installed; run `apt-get install postgresql`, or put the folder of its initdb on PATH"
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
def running_database(folder: Path, binaries: Path, password: str, pause: Callable[[], None]) -> Iterator[Database]:
    """Runs PostgreSQL with MLflow's two databases while the `with` block runs.

    folder: the server's folder, whose lock is held and in which no other PostgreSQL runs (see `stop_orphan`). password:
    the password of ROLE. pause: waits a moment, or raises KeyboardInterrupt if the server is to stop. Raises
    MachineError if PostgreSQL does not start.
    """
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "PGPASSWORD": password}
    postgres = _Postgres(binaries, _database_user(), environment)
    usual = tempfile.gettempdir()
    roomy = usual if len(os.fsencode(usual)) <= _LONGEST_SOCKET_ROOT else "/tmp"
    with tempfile.TemporaryDirectory(prefix=_SOCKET_PREFIX, dir=roomy) as scratch:
        socket, data, log = Path(scratch), folder / "postgres", folder / "postgres.log"
        postgres.own(socket)
        if not (data / "PG_VERSION").exists():
            _initialise(postgres, data, socket / "password", password)
        log.touch(mode=0o600)
        written = log.stat().st_size
        process = postgres.start(data, socket, log)
        main = psutil.Process(process.pid)
        try:
            try:
                _wait_until_ready(postgres, process, socket, pause)
                _create_databases(postgres, socket)
            except SupSupError as error:
                raise MachineError(f"{_last_error(log, written) or error} (see {log})") from error
            yield Database(process, socket)
        finally:
            end_processes([main], _STOP_SIGNALS, STOP_SECONDS)
            process.wait()


def _initialise(postgres: _Postgres, data: Path, password_file: Path, password: str) -> None:
    """Create PostgreSQL's folder `data`. password_file: a temporary file from which initdb reads the password.

    The folder gets its name when it is complete, so that the next start repeats an interrupted initialisation.
    """
    unfinished = data.with_name(f"{data.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    postgres.own(unfinished, password_file)
    options = ("--username", ROLE, "--pwfile", password_file, "--auth", "scram-sha-256", "-E", "UTF8")
    postgres.run("initdb", "-D", unfinished, *options)
    password_file.unlink()
    unfinished.rename(data)


def _wait_until_ready(
    postgres: _Postgres, process: subprocess.Popen[bytes], socket: Path, pause: Callable[[], None]
) -> None:
    """Wait until PostgreSQL accepts connections.

    Raises SupSupError if PostgreSQL stops, or if it does not accept connections within START_SECONDS.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        if process.poll() is not None:
            raise SupSupError(f"PostgreSQL stopped while it started (exit code {process.returncode})")
        try:
            postgres.run("pg_isready", "-q", "-h", socket, "-U", ROLE)
        except SupSupError:
            if time.monotonic() > deadline:
                raise
            pause()
        else:
            return


def _last_error(log: Path, since: int) -> str | None:
    """Returns the last error that PostgreSQL wrote to its log after the first `since` bytes, or None."""
    lines = log.read_bytes()[since:].decode(errors="replace").splitlines()
    errors = [text for line in lines for kind in ("FATAL:", "PANIC:") for _, _, text in [line.partition(kind)] if text]
    return f"PostgreSQL: {errors[-1].strip()}" if errors else None


def _create_databases(postgres: _Postgres, socket: Path) -> None:
    """Create MLflow's two databases if they do not exist."""
    as_role = ("-h", socket, "-U", ROLE)
    names = postgres.run("psql", *as_role, "-d", "postgres", "-Atc", "SELECT datname FROM pg_database").split()
    for name in DATABASES:
        if name not in names:
            postgres.run("createdb", *as_role, name)


def stop_orphan(folder: Path) -> bool:
    """Stops the PostgreSQL that a killed server left in its folder. Returns whether such a PostgreSQL was running.

    folder: the server's folder, whose lock is held. All committed data are kept. Only processes with three properties
    are signalled: the name is `postgres`, the user owns the data folder, and the working folder is the data folder. If
    the id in an outdated `postmaster.pid` now belongs to another program's process, the process is not signalled. The
    outdated file is removed, because PostgreSQL would otherwise refuse to start. Raises MachineError if the orphan does
    not stop.
    """
    data = folder / "postgres"
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        main, socket = int(lines[0]), Path(lines[4])
    except (FileNotFoundError, NotADirectoryError, IndexError, ValueError):
        main, socket = 0, None  # PostgreSQL itself removes a file that it cannot read
    orphans = list(_processes_of(data)) if data.exists() else []
    end_processes([process for process in orphans if process.pid == main], _STOP_SIGNALS, STOP_SECONDS)
    alive = end_processes(orphans, [signal.SIGQUIT], STOP_SECONDS)  # processes whose main process was killed
    if alive:
        raise MachineError(
            f"{data}: process {alive[0].pid} of PostgreSQL does not end; kill this process, then start the server again"
        )
    if main and psutil.pid_exists(main):
        (data / "postmaster.pid").unlink(missing_ok=True)
    if socket is not None and socket.name.startswith(_SOCKET_PREFIX):
        shutil.rmtree(socket, ignore_errors=True)
    return bool(orphans)


def _processes_of(data: Path) -> Iterator[psutil.Process]:
    """Finds the processes of PostgreSQL whose data folder is `data`."""
    owner, home = data.stat().st_uid, str(data.resolve())
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # ended, or belongs to another user
            if process.name() == "postgres" and process.uids().real == owner and process.cwd() == home:
                yield process
