"""Records the last commit of each ledger in a separate file (the note), so that a loss of committed rows is detected.

SQLite does not detect that an older file has replaced the database, or that its -wal was lost or cut off between two
commits. The note is written after each commit, so the note never names an uncommitted row. The note is not synced to
disk (fsync). After a power failure, the note may therefore be older than the ledger. An older note detects only the
loss of older rows.

The note has two lines: one for the last commit and one for the commit before. Each commit overwrites the older line. If
a crash interrupts the write, the other line is intact.
"""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import NamedTuple

from orchestrator.base.files import readable
from supsup_core.errors import CorruptError, SupSupError

_LINE = re.compile(rb"(epoch (\d{20}), row (\d{20}), checksum ([0-9a-f]{8}), )([0-9a-f]{8})\n")


class LastCommit(NamedTuple):
    """The last commit of a ledger. `epoch`: the epoch of the writer.

    `seq`, `checksum`: the number and the checksum of the last row.
    """

    epoch: int
    seq: int
    checksum: int

    def to_line(self) -> bytes:
        """Returns a line of the note. All lines have the same length."""
        text = b"epoch %020d, row %020d, checksum %08x, " % self
        return b"%s%08x\n" % (text, zlib.crc32(text))

    @classmethod
    def from_line(cls, line: bytes) -> LastCommit | None:
        """Parses a line of the note. Returns None if the line is damaged or was not written completely."""
        found = _LINE.fullmatch(line)
        if found is None or zlib.crc32(found[1]) != int(found[5], 16):
            return None
        return cls(int(found[2]), int(found[3]), int(found[4], 16))


_LENGTH = len(LastCommit(0, 0, 0).to_line())


def _lines(content: bytes) -> list[LastCommit | None]:
    """Parses the two lines of a note."""
    return [LastCommit.from_line(content[start : start + _LENGTH]) for start in (0, _LENGTH)]


def last_commit_path(ledger: Path) -> Path:
    """Returns the path of a ledger's note. The note lies in the ledger's folder."""
    return ledger.with_name("ledger.last-commit")


def read_last_commit(ledger: Path) -> LastCommit | None:
    """Returns the last commit that the note of a ledger names, or None if no commit was noted completely.

    Raises CorruptError if both lines of the note are damaged, and MachineError if the note cannot be read.
    """
    path = last_commit_path(ledger)
    try:
        with readable(path):
            content = path.read_bytes()
    except FileNotFoundError:
        return None
    found = [line for line in _lines(content) if line is not None]
    if not found and len(content) > _LENGTH:
        raise CorruptError(f"{path}: this file records the last commit of a ledger, and is damaged")
    return max(found, default=None)


class LastCommitWriter:
    """Writes the note of one ledger's last commit."""

    def __init__(self, ledger: Path) -> None:
        self._path = last_commit_path(ledger)
        self._file: int | None = None
        self._start = 0

    def write(self, last: LastCommit) -> None:
        """Writes the note. Raises SupSupError if the note cannot be written, although the commit itself is valid."""
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                first, second = _lines(os.pread(self._file, 2 * _LENGTH, 0))
                self._start = _LENGTH if first is not None and (second is None or first > second) else 0
            os.pwrite(self._file, last.to_line(), self._start)
            self._start = _LENGTH - self._start
        except OSError as error:
            raise SupSupError(
                f"{self._path}: cannot be written ({error.strerror}); correct the cause, then run `supsup resume`"
            ) from error

    def close(self) -> None:
        """Closes the file, if it is open."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
