"""Atomic writes: a file is complete or absent. The home folder and the private folder of a process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.base.files import ensure_home, is_partial, private_folder, replace_durably, write_atomically
from supsup_core.errors import InputError


def test_a_file_is_replaced_atomically(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, b"first")
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["file.json"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_failed_write_does_not_change_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, b"first")

    def full(handle: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file.json"]


def test_names_of_interrupted_writes_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(os, "replace", lambda old, new: seen.append(Path(old).name) or Path(old).rename(new))
    write_atomically(tmp_path / "file.json", b"content")
    assert is_partial(tmp_path / seen[0])
    for name in ("file.json", ".hidden", ".file.json.tmp", ".file.json.ABCDEFGH"):
        assert not is_partial(tmp_path / name)


def test_renaming_a_file_replaces_the_file_with_that_name(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("new content")
    (tmp_path / "new").write_text("old content")
    replace_durably(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "new").read_text() == "new content"
    assert os.listdir(tmp_path) == ["new"]


def test_a_user_without_a_home_folder_gets_a_private_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    ensure_home()
    assert os.environ["HOME"] == "/home/somebody"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    ensure_home()
    home = Path(os.environ["HOME"])
    assert home == private_folder("")
    assert (home.stat().st_uid, home.stat().st_mode & 0o777) == (os.getuid(), 0o700)


def test_a_private_folder_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(
        InputError,
        match=f"/tmp/supsup-{os.getuid()}: is a symbolic link, belongs to another user or is not writable; the remedy",
    ):
        private_folder("the remedy")
