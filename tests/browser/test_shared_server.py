"""`supsup server`: MLflow over PostgreSQL requires a password, survives kills, and stores what two sweeps write."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from selenium import webdriver

from tests.outputs import points_of, scientific_points
from tests.requirements import missing


class SharedServer:
    """A process of `supsup server` and its folder, which PostgreSQL's system user can access."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> subprocess.Popen[bytes]:
        """Starts the process and does not wait for its answer."""
        with (self.folder / "told").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli", "server", str(self.folder), "--port", str(self.port)],
                stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def told(self) -> str:
        """What the process printed since it was started."""
        return (self.folder / "told").read_text()

    def start(self) -> None:
        self.process = self.launch()
        deadline = time.monotonic() + 90
        while self.address not in self.told:  # an orphan may answer before
            assert self.process.poll() is None, self.told
            assert time.monotonic() < deadline, self.told
            time.sleep(0.3)
        assert self.status("/health") == 200

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        started = self.processes()
        self.process.send_signal(number)
        assert self.process.wait(timeout=60) == 0
        assert not any(map(runs, started))

    @property
    def mlflow(self) -> list[psutil.Process]:
        """The processes of the server and of MLflow. PostgreSQL starts and ends processes at any time."""
        return [process for process in self.processes() if process.name() != "postgres"]

    def processes(self) -> list[psutil.Process]:
        """The processes of the server, of MLflow and of PostgreSQL."""
        assert self.process is not None
        mine = psutil.Process(self.process.pid)
        return [mine, *mine.children(recursive=True)]

    def ask(self, path: str, node: dict[str, Any] | None = None, user: str = "admin", password: str = "") -> Any:
        """Returns the JSON that MLflow's REST interface answers. node: the body of a POST request; None means GET."""
        request = urllib.request.Request(f"{self.address}/api/2.0/mlflow/{path}")
        request.add_header("Authorization", _basic(user, password or self.password))
        if node is not None:
            request.data = json.dumps(node).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    @property
    def password(self) -> str:
        return (self.folder / "admin_password").read_text()

    def status(self, path: str, password: str | None = None, user: str = "admin") -> int:
        """Returns the HTTP status of a page; 0 if the server does not answer."""
        request = urllib.request.Request(self.address + path)
        if password is not None:
            request.add_header("Authorization", _basic(user, password))
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


def runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    return False


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedServer]:
    if shutil.which("initdb") is None and not list(Path("/usr/lib/postgresql").glob("*/bin")):
        missing("needs PostgreSQL (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="supsup-server-"))
    found = SharedServer(folder)
    (folder / "postgres.unfinished").mkdir()  # the first start was interrupted
    (folder / "postgres.unfinished" / "PG_VERSION").write_text("15")
    found.start()
    try:
        yield found
        found.stop()
    finally:
        shutil.rmtree(folder)


EXPERIMENTS = "/api/2.0/mlflow/experiments/search?max_results=1"
OPEN = ["/health", "/static-files/index.html", "/api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/server-info"]
"""The paths that answer without a password (docs/security.md)."""
CLOSED = [
    "/", "/version", "/metrics", "/graphql", "/signup", "/docs", "/openapi.json", "/get-artifact", EXPERIMENTS,
    "/ajax-api/2.0/mlflow/experiments/search?max_results=1", "/api/2.0/mlflow/users/list",
    "/api/2.0/mlflow-artifacts/artifacts", "/ajax-api/3.0/mlflow/ui-telemetry",
]  # fmt: skip


def test_every_page_but_those_of_the_documentation_requires_the_password(shared: SharedServer) -> None:
    for path in CLOSED:
        assert shared.status(path) == 401, path
        assert shared.status(path, "password1234") == 401, path
    for path in OPEN:
        assert shared.status(path) == 200, path
    outside = "/static-files/../../__init__.py", "/static-files/%2e%2e/%2e%2e/__init__.py", f"/health/..{EXPERIMENTS}"
    for path in outside:
        assert shared.status(path) == 404, path
    assert shared.status(EXPERIMENTS, shared.password) == 200
    for name in ("admin_password", "postgres_password", "cookie_secret", "mlflow.log", "postgres.log"):
        assert (shared.folder / name).stat().st_mode & 0o777 == 0o600, name


def test_only_the_administrator_adds_users(shared: SharedServer) -> None:
    shared.ask("users/create", {"username": "ada", "password": "ada's password"})
    assert shared.status("/signup", "ada's password", "ada") == 403
    assert shared.status("/signup", shared.password) == 200
    with pytest.raises(urllib.error.HTTPError, match="403"):
        shared.ask("users/create", {"username": "eve", "password": "eve's password"}, "ada", "ada's password")


def test_a_second_server_is_refused_in_one_line_and_the_first_runs_on(
    shared: SharedServer, supsup: Callable[..., Any]
) -> None:
    before = shared.mlflow
    assert shared.process is not None
    for port in (shared.port, shared.port + 1):
        found = supsup("server", shared.folder, "--port", port)
        assert (found.code, found.out) == (2, "")
        assert f"process {shared.process.pid} is running this server" in found.err
        assert len(found.err.splitlines()) == 1
    found = supsup("server", "other", "--port", shared.port)
    assert (found.code, found.out) == (2, "")
    assert f"--port: {shared.port} is already in use on 127.0.0.1 by process" in found.err
    assert len(found.err.splitlines()) == 1
    assert not Path("other").exists()
    assert shared.mlflow == before
    assert shared.status("/health") == 200


def test_a_killed_server_starts_again_with_its_users_and_runs(shared: SharedServer) -> None:
    shared.ask("users/create", {"username": "bob", "password": "bob's password"})
    as_bob = {"user": "bob", "password": "bob's password"}
    made = shared.ask("experiments/create", {"name": "bob's"}, **as_bob)
    run = shared.ask("runs/create", {"experiment_id": made["experiment_id"]}, **as_bob)["run"]["info"]["run_id"]
    assert shared.process is not None
    main, *orphans = shared.processes()
    socket_folder = Path((shared.folder / "postgres" / "postmaster.pid").read_text().splitlines()[4])
    main.kill()
    shared.process.wait()
    assert shared.status("/health") == 200  # MLflow runs on
    point = {"run_id": run, "key": "accuracy", "value": 0.5, "timestamp": 1, "step": 3}
    shared.ask("runs/log-metric", point, **as_bob)  # after the kill
    shared.start()
    assert "ended MLflow and PostgreSQL, which a killed server" in shared.told
    assert not any(map(runs, orphans))
    assert not socket_folder.exists()
    (metric,) = shared.ask(f"runs/get?run_id={run}", **as_bob)["run"]["data"]["metrics"]
    assert (metric["key"], metric["value"], metric["step"]) == ("accuracy", 0.5, 3)
    assert shared.ask("users/current", **as_bob)["user"]["username"] == "bob"


@pytest.mark.long  # two minutes
def test_servers_whose_processes_die_end_in_one_line_and_start_again(shared: SharedServer) -> None:
    """Nothing is started again without end, and no process is left."""
    for number in (signal.SIGHUP, signal.SIGINT):
        shared.stop(number)
        shared.start()
    shared.ask("experiments/create", {"name": "before the faults"})
    for name, log in (("postgres", "postgres.log"), ("uvicorn", "mlflow.log")):
        started = shared.processes()
        next(process for process in started if name in " ".join(process.cmdline())).kill()
        assert shared.process is not None
        assert shared.process.wait(timeout=90) == 1
        assert not any(map(runs, started))
        line = shared.told.splitlines()[-1]
        assert line.startswith("supsup: ")
        assert str(shared.folder / log) in line
        shared.start()
    version = shared.folder / "postgres" / "PG_VERSION"
    shared.stop()
    right = version.read_text()
    version.write_text("9\n")
    started_at = time.monotonic()
    assert shared.launch().wait(timeout=90) == 1
    assert time.monotonic() - started_at < 30
    assert len(shared.told.splitlines()) == 1
    assert str(shared.folder / "postgres.log") in shared.told
    version.write_text(right)
    shared.start()
    assert shared.ask("experiments/get-by-name?experiment_name=before%20the%20faults")


@pytest.mark.long  # half a minute
def test_a_process_with_the_number_of_the_old_postgresql_is_not_touched(shared: SharedServer) -> None:
    """PostgreSQL refuses to start if its file names a living process of its user."""
    data = shared.folder / "postgres"
    before = (data / "postmaster.pid").read_text().splitlines()
    shared.stop()
    owner = data.stat()
    as_owner = {} if os.geteuid() else {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    with subprocess.Popen(["sleep", "600"], **as_owner) as stranger:  # type: ignore[call-overload]
        stale = data / "postmaster.pid"
        stale.write_text("\n".join([str(stranger.pid), *before[1:]]) + "\n")
        stale.chmod(0o600)
        os.chown(stale, owner.st_uid, owner.st_gid)
        shared.start()
        assert stranger.poll() is None
        assert int(stale.read_text().split()[0]) != stranger.pid
        stranger.kill()


@pytest.mark.long  # half a minute
def test_mlflow_that_never_answers_is_ended(
    shared: SharedServer, supsup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.tracking.team_server.START_SECONDS", 0.0)
    shared.stop()
    found = supsup("server", shared.folder, "--port", shared.port)
    assert found.code == 1
    assert f"supsup: MLflow does not answer after 0 s; read {shared.folder / 'mlflow.log'}" in found.err
    assert psutil.Process().children(recursive=True) == []
    shared.start()


def test_the_server_listens_on_loopback_only_and_no_command_line_contains_a_password(shared: SharedServer) -> None:
    processes = shared.processes()
    listening = {
        connection.laddr.ip: connection.laddr.port
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1": shared.port}
    secrets = [(shared.folder / name).read_text() for name in ("admin_password", "postgres_password", "cookie_secret")]
    told = " ".join(word for process in processes for word in process.cmdline())
    assert not any(secret in told for secret in secrets)


@pytest.mark.parametrize("password", ["password1234", "short", "", "Administrator"])
def test_a_default_password_is_refused(
    password: str, supsup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", password)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = supsup("server", "served", "--port", port)
    assert found.code == 2
    assert "MLFLOW_AUTH_ADMIN_PASSWORD: " in found.err
    assert not Path("served/admin_password").exists()


@pytest.mark.long  # a minute
def test_two_sweeps_write_concurrently_and_the_browser_shows_both(
    shared: SharedServer,
    launch: Callable[..., Any],
    call: Callable[..., Any],
    sweep_file: Callable[..., Path],
    tmp_path: Path,
    browser: webdriver.Chrome,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {name: sweep_file(f"{name}.yaml", name=name, seeds=[seed]) for name, seed in (("one", 0), ("other", 1))}
    for name, file in files.items():
        assert call("sweep", file, f"output=wanted-{name}", "--local")[0] == 0
    code, _, err = call("sweep", files["one"], "output=refused", f"tracking={shared.address}", "--local")
    assert code == 1  # the training succeeds, and the missing MLflow points are reported
    assert "could not be written to MLflow" in err
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", shared.password)
    running = [
        launch("sweep", file, f"output=runs-{name}", f"tracking={shared.address}", "--local")
        for name, file in files.items()
    ]
    for process in running:
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
    shared.stop()
    shared.start()  # all data must be on disk
    client = mlflow.MlflowClient(shared.address)
    for name in files:
        assert points_of(client, name) == scientific_points(tmp_path / f"wanted-{name}", name)
    browser.get(f"http://admin:{shared.password}@127.0.0.1:{shared.port}/")
    browser.get(f"{shared.address}/#/experiments")
    deadline = time.monotonic() + 60
    text = ""
    while not all(name in text.split() for name in files) and time.monotonic() < deadline:
        text = browser.find_element("tag name", "body").text
        time.sleep(0.3)
    assert set(files) <= set(text.split())
    browser.save_screenshot(str(tmp_path / "shared.png"))
