"""The token of a local Ray cluster: only the current user can read its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.execution.ray_session import keep_token_private
from supsup_core.errors import InputError


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / ".ray" / "auth_token"


def test_a_token_is_made_once_and_only_its_user_can_read_it(token: Path) -> None:
    keep_token_private()
    made = token.read_text()
    assert len(made) == 64
    assert token.stat().st_mode & 0o777 == 0o600
    token.chmod(0o644)  # the mode of a file that Ray creates
    keep_token_private()
    assert token.read_text() == made
    assert token.stat().st_mode & 0o777 == 0o600


def test_a_token_that_cannot_be_written_is_reported(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (token.parent.parent / "file").write_text("")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token.parent.parent / "file" / "token"))
    with pytest.raises(InputError, match="RAY_AUTH_TOKEN_PATH"):
        keep_token_private()


def test_a_token_that_the_user_provides_is_not_changed(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    keep_token_private()
    assert not token.exists()
