"""The token of a Ray of our own: its user's alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.execution.launch import _keep_token_private
from supsup_core.errors import InputError


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / ".ray" / "auth_token"


def test_a_token_is_made_once_and_readable_by_its_user_alone(token: Path) -> None:
    _keep_token_private()
    made = token.read_text()
    assert len(made) == 64
    assert token.stat().st_mode & 0o777 == 0o600
    token.chmod(0o644)  # as Ray itself leaves it
    _keep_token_private()
    assert token.read_text() == made
    assert token.stat().st_mode & 0o777 == 0o600


def test_a_token_that_cannot_be_kept_is_told(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (token.parent.parent / "file").write_text("")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token.parent.parent / "file" / "token"))
    with pytest.raises(InputError, match="RAY_AUTH_TOKEN_PATH"):
        _keep_token_private()


def test_a_token_from_elsewhere_is_left_alone(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    _keep_token_private()
    assert not token.exists()
