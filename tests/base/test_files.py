"""Atomic writes: a file is complete or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.base.files import is_partial, replace_durably, write_atomically


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
