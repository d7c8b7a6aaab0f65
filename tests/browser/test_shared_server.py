"""`supsup server`: MLflow over PostgreSQL requires a password, and stores what two concurrent sweeps write."""

from __future__ import annotations

import base64
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

    def start(self) -> None:
        with (self.folder / "told").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli", "server", str(self.folder), "--port", str(self.port)],
                stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 90
        while self.status("/health") != 200:
            assert self.process.poll() is None, (self.folder / "told").read_text()
            assert time.monotonic() < deadline, (self.folder / "told").read_text()
            time.sleep(0.3)

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=60) == 0

    @property
    def password(self) -> str:
        return (self.folder / "admin_password").read_text()

    def status(self, path: str, password: str | None = None, user: str = "admin") -> int:
        """Returns the HTTP status of a page; 0 if the server does not answer."""
        request = urllib.request.Request(self.address + path)
        if password is not None:
            given = base64.b64encode(f"{user}:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {given}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedServer]:
    if shutil.which("initdb") is None and not list(Path("/usr/lib/postgresql").glob("*/bin")):
        missing("needs PostgreSQL (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="supsup-server-"))
    found = SharedServer(folder)
    found.start()
    yield found
    found.stop()
    shutil.rmtree(folder)


EXPERIMENTS = "/api/2.0/mlflow/experiments/search?max_results=1"


def test_every_page_requires_the_password(shared: SharedServer) -> None:
    for path in ("/", EXPERIMENTS, "/ajax-api/2.0/mlflow/experiments/search?max_results=1", "/signup"):
        assert shared.status(path) == 401, path
        assert shared.status(path, "password1234") == 401, path
    assert shared.status(EXPERIMENTS, shared.password) == 200
    for name in ("admin_password", "postgres_password", "cookie_secret"):
        assert (shared.folder / name).stat().st_mode & 0o777 == 0o600, name


def test_the_server_listens_on_loopback_only_and_no_command_line_contains_a_password(shared: SharedServer) -> None:
    assert shared.process is not None
    mine = psutil.Process(shared.process.pid)
    processes = [mine, *mine.children(recursive=True)]  # including PostgreSQL's processes
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
