"""Notes the last commit of a ledger in a file beside it, so that the loss of committed rows is noticed.

SQLite cannot notice when its file is replaced by an older one, or when its -wal is lost or cut between two commits. The
note lies in its own file and is written after each commit, so it never names a row that was not committed. It is not
forced to the disk: after a power failure it may be older than the ledger, and then proves less.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from pathlib import Path
from typing import NamedTuple

from supsup_core.errors import CorruptError, SupSupError

_PATTERN = re.compile(rb"(epoch (\d{20}), row (\d{20}), checksum ([0-9a-f]{8}), )([0-9a-f]{8})\n")
_TRIES = 3
"""How often a note is read before damage is believed: a running writer may be writing it."""


class LastCommit(NamedTuple):
    """The last commit of a ledger. `epoch`: of its writer. `seq`, `checksum`: of the last row."""

    epoch: int
    seq: int
    checksum: int

    def to_bytes(self) -> bytes:
        """Returns the content of the note. All notes have the same length."""
        text = b"epoch %020d, row %020d, checksum %08x, " % self
        return b"%s%08x\n" % (text, zlib.crc32(text))

    @classmethod
    def from_bytes(cls, content: bytes) -> LastCommit:
        """Parses a note. Raises CorruptError if it is damaged."""
        found = _PATTERN.fullmatch(content)
        if found is None or zlib.crc32(found[1]) != int(found[5], 16):
            raise CorruptError("this file records the last commit of a ledger, and is damaged")
        return cls(int(found[2]), int(found[3]), int(found[4], 16))


def last_commit_path(ledger: Path) -> Path:
    """Returns the path of the note of a ledger, which lies in the same folder."""
    return ledger.with_name("ledger.last-commit")


def read_last_commit(ledger: Path) -> LastCommit | None:
    """Returns the note of a ledger's last commit, or None if there is no note.

    Raises CorruptError if the note is damaged, and SupSupError if it cannot be read.
    """
    path = last_commit_path(ledger)
    for tries_left in reversed(range(_TRIES)):
        try:
            return LastCommit.from_bytes(path.read_bytes())
        except FileNotFoundError:
            return None
        except CorruptError as error:
            if not tries_left:
                raise CorruptError(f"{path}: {error}") from None
            time.sleep(0.01)
        except OSError as error:
            raise SupSupError(f"{path}: cannot be read ({error.strerror}); correct the cause") from error
    raise AssertionError("unreachable")


class LastCommitWriter:
    """Writes the note of one ledger's last commit."""

    def __init__(self, ledger: Path) -> None:
        self._path = last_commit_path(ledger)
        self._file: int | None = None

    def write(self, last: LastCommit) -> None:
        """Writes the note. Raises SupSupError if that fails; the commit itself then stays valid."""
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            os.pwrite(self._file, last.to_bytes(), 0)
        except OSError as error:
            raise SupSupError(
                f"{self._path}: cannot be written ({error.strerror}); correct the cause, then run `supsup resume`"
            ) from error

    def close(self) -> None:
        """Closes the file, if it is open."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
