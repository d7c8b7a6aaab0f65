"""Input that the shared MLflow server refuses before it starts. tests/browser runs a real server."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from orchestrator.tracking.team_server import serve
from supsup_core.errors import InputError


@pytest.fixture
def port() -> int:
    """Returns a free port on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_an_invalid_address_for_artifacts_is_refused(tmp_path: Path, port: int) -> None:
    with pytest.raises(InputError):
        serve(tmp_path / "server", port, "nowhere://x")
    assert not (tmp_path / "server").exists()


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="--port: "):
            serve(tmp_path / "server", taken.getsockname()[1], None)
    assert not (tmp_path / "server").exists()


def test_without_postgresql_the_message_says_how_to_install_it(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))
    with pytest.raises(InputError, match="apt-get install postgresql"):
        serve(tmp_path / "server", port, None)


@pytest.mark.parametrize("password", ["password1234", "short", "", "Administrator"])
def test_an_easily_guessed_password_is_refused(
    password: str, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "initdb").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", password)
    with pytest.raises(InputError, match="MLFLOW_AUTH_ADMIN_PASSWORD: "):
        serve(tmp_path / "server", port, None)
    assert not (tmp_path / "server" / "admin_password").exists()
