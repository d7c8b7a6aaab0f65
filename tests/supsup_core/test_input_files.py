"""Files that users provide: only regular files are read, and only up to an expected size."""

from __future__ import annotations

import gzip
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from supsup_core.errors import CorruptError, InputError
from supsup_core.input_files import gunzip, open_file, read_file, user_path


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


ODD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (Path.mkdir, "because it is a folder"),
    "a named pipe": (os.mkfifo, "because it is a named pipe"),
    "a socket": (make_socket, "because it is a socket"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "because it is a device"),
    "a dangling link": (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
    "a link to itself": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "a link to a pipe": (lambda path: (os.mkfifo(f"{path}.pipe"), path.symlink_to(f"{path}.pipe")), "a named pipe"),
}


@pytest.mark.parametrize("kind", ODD_FILES)
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    make, words = ODD_FILES[kind]
    path = tmp_path / "f"
    make(path)
    with pytest.raises(InputError, match=f"^{path}: cannot be read.*{words}.*;"):
        read_file(path, 100)


def test_a_file_is_read_up_to_its_expected_size(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    (tmp_path / "link").symlink_to(path)
    assert read_file(tmp_path / "link", 100) == b"x" * 100
    with open_file(path) as file:
        assert file.read(3) == b"xxx"
    with pytest.raises(InputError, match="is larger than 99 bytes"):
        read_file(path, 99)
    for missing in (tmp_path / "none", tmp_path / ("x" * 300), Path("a\0b")):
        with pytest.raises(InputError, match="cannot be read"):
            read_file(missing, 99)


def test_a_gzip_file_is_decompressed_up_to_its_expected_size() -> None:
    packed = gzip.compress(b"x" * 1000)
    assert gunzip(packed, 1000) == b"x" * 1000
    assert gunzip(packed + packed + b"\0" * 9, 2000) == b"x" * 2000
    for content, most, words in (
        (packed, 999, "has more than 999 bytes"),
        (packed + packed, 1999, "has more than 1,999 bytes"),
        (packed[:-3], 1000, "ends early"),
        (packed[:5], 1000, "ends early"),
        (packed + b"zz", 1000, "is not a gzip file"),
        (packed[:-8] + bytes(8), 1000, "is not a gzip file"),
        (b"hello", 10, "is not a gzip file"),
        (b"", 10, "is empty"),
    ):
        with pytest.raises(CorruptError, match=words):
            gunzip(content, most)


def test_a_path_is_absolute_and_its_home_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(tmp_path)
    assert user_path("~/a#b") == Path("/home/somebody/a#b")
    assert user_path("../x") == tmp_path / "../x"
    with pytest.raises(
        InputError, match="this machine does not know the home folder in this path; write the full path"
    ):
        user_path("~nobody_at_all/x")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InputError, match="the working folder was deleted"):
        user_path("x")
    monkeypatch.chdir(tmp_path)
