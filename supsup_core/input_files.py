"""Reads files that users name or provide: never a pipe, a device or a folder, and never more than an expected size."""

from __future__ import annotations

import os
import stat
import zlib
from pathlib import Path
from typing import BinaryIO

from supsup_core.errors import CorruptError, InputError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def user_path(text: str | Path) -> Path:
    """Returns the absolute path that a user has written, with `~` and `~NAME` replaced by a home folder.

    Raises InputError if there is no such home folder, or if the path is relative and the working folder was deleted.
    """
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise InputError(
            f"{text}: this machine does not know the home folder in this path; write the full path"
        ) from error
    except FileNotFoundError as error:
        raise InputError(f"{text}: the working folder was deleted; change to another folder") from error


def open_file(path: Path) -> BinaryIO:
    """Opens a regular file for reading, or the file that a link names. Never waits, as opening a named pipe would.

    Raises InputError, which names the path, if the path is not a regular file, or if the file cannot be opened.
    """
    try:
        _check_kind(path, os.stat(path).st_mode)  # before it is opened, because opening a device may have effects
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise _unreadable(path, error) from error
    try:
        _check_kind(path, os.fstat(descriptor).st_mode)
    except InputError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_file(path: Path, most_bytes: int) -> bytes:
    """Returns the content of a regular file.

    Raises InputError as `open_file` does, or if the file is larger than `most_bytes`.
    """
    with open_file(path) as file:
        try:
            content = file.read(most_bytes + 1)
        except OSError as error:
            raise _unreadable(path, error) from error
    if len(content) > most_bytes:
        raise InputError(f"{path}: is larger than {most_bytes:,} bytes, so it is not the expected file; replace it")
    return content


def _unreadable(path: Path, error: OSError | ValueError) -> InputError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return InputError(f"{path}: cannot be read ({reason}); check the path and its permissions")


def gunzip(content: bytes, most_bytes: int) -> bytes:
    """Decompresses a gzip file of any number of members. Never decompresses more than `most_bytes` + 1 bytes.

    Raises CorruptError if the content would be larger, if the file is truncated, or if it is not a gzip file.
    """
    if not content:
        raise CorruptError("is empty, not a gzip file")
    found = bytearray()
    left = content
    while left:
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            found += member.decompress(left, most_bytes + 1 - len(found))
        except zlib.error as error:
            raise CorruptError(f"is truncated or is not a gzip file ({error})") from error
        if len(found) > most_bytes:
            raise CorruptError(f"has more than {most_bytes:,} bytes when it is decompressed")
        if not member.eof:
            raise CorruptError("is truncated or is not a gzip file (it ends early)")
        left = member.unused_data.lstrip(b"\0")  # a gzip file may be padded with zeros
    return bytes(found)


def _check_kind(path: Path, mode: int) -> None:
    """Raises InputError if the mode of `path` is not that of a regular file."""
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "not a regular file")
        raise InputError(
            f"{path}: cannot be read, because it is {kind}; put a regular file there, or name another file"
        )
