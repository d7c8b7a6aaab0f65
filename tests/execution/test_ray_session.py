"""The token and the folder of a local Ray cluster: only the current user can read and write them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.execution.ray_session import keep_token_private, own_folder
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


def test_the_token_is_in_a_private_folder_if_the_home_folder_cannot_be_written(
    token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "")
    monkeypatch.setattr(os, "access", lambda path, mode: path == Path(f"/tmp/supsup-{os.getuid()}"))
    keep_token_private()
    used = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert used.parent == Path(f"/tmp/supsup-{os.getuid()}")
    assert used.stat().st_mode & 0o777 == 0o600
    assert not token.exists()


def test_a_token_that_the_user_provides_is_not_changed(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    keep_token_private()
    assert not token.exists()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder for TMPDIR."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_rays_own_folder_is_used_if_its_path_is_short(short: Path) -> None:
    assert own_folder() is None


def test_a_long_tmpdir_is_replaced_by_a_private_folder(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short / ("x" * 60)))
    found = own_folder()
    assert found == Path(f"/tmp/supsup-{os.getuid()}")
    assert found.stat().st_uid == os.getuid()


def test_a_folder_of_another_user_is_not_used(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (short / "ray").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != short / "ray")
    assert own_folder() == Path(f"/tmp/supsup-{os.getuid()}")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"belongs to another user.*; set RAY_TMPDIR to a folder of yours"):
        own_folder()


def test_a_folder_that_the_user_chose_is_used_or_refused(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    assert own_folder() is None
    monkeypatch.setenv("RAY_TMPDIR", str(short / ("x" * 60)))
    with pytest.raises(InputError, match="RAY_TMPDIR: Ray cannot use"):
        own_folder()
