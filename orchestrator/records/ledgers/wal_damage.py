"""Verifies the -wal of a ledger, the file to which SQLite appends committed pages."""

from __future__ import annotations

import functools
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.base.files import readable
from supsup_core.errors import CorruptError

# A -wal (https://www.sqlite.org/walformat.html) has a header of 32 bytes, and frames of a 24-byte header and one page.
# SQLite silently ignores all frames after the first wrong checksum, so a flipped bit could remove committed rows.
_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoint number, two salts, two checksums
_FRAME = struct.Struct(">6I")  # page number, size after a commit (0: no commit), two salts, two checksums
_MAGIC = 0x377F0682  # plus 1 if the checksums read big-endian integers
_MASK = 0xFFFFFFFF

_TRIES = 3
"""A -wal counts as damaged only if this many reads find the same damage, because a running writer may just have
restarted the file."""


@dataclass(frozen=True)
class WalDamage:
    """The frames of a -wal that SQLite ignores although they belong to committed transactions.

    `first`: the number of the first damaged frame, from 1; 0 if the header is damaged. `num_lost`: the number of frames
    from the first damaged frame to the last frame that ends a transaction.
    """

    first: int
    num_lost: int

    def __str__(self) -> str:
        where = f"frame {self.first}" if self.first else "the header"
        return f"{where} of its -wal is damaged, so SQLite ignores {self.num_lost} committed frames"


def check_wal(ledger: Path) -> None:
    """Raises CorruptError if the -wal of a ledger has lost committed frames, and MachineError if it cannot be read.

    A transaction without its last frame is not damage, because the writing process died before the commit. If the
    process died between the header and the page of the last frame, the transaction is reported as damage, although it
    was never committed. If a -wal was cut off between two transactions, the loss is not detected, because the file
    looks like an older -wal.
    """
    found: WalDamage | None = None
    for number in range(_TRIES):
        if number:
            time.sleep(0.05)
        path = ledger.with_name(ledger.name + "-wal")
        try:
            with readable(path):
                content = path.read_bytes()
        except FileNotFoundError:
            return
        previous, found = found, wal_damage(content)
        if found is None or (number and found != previous):
            return
    raise CorruptError(str(found))


def wal_damage(content: bytes) -> WalDamage | None:
    """Returns the damage of a -wal, or None if it has lost no committed frame."""
    if len(content) < _HEADER.size + _FRAME.size:
        return None
    import numpy  # only here, because most ledgers have no -wal, and `supsup status` starts faster without numpy

    magic, _, page_size, _, *salts = _HEADER.unpack_from(content)[:6]
    order = ">u4" if magic & 1 else "<u4"
    words = numpy.frombuffer(content, order, 6)
    sums = _continued((0, 0), 3, words @ _weights(3))
    if magic & ~1 != _MAGIC or list(sums) != list(_HEADER.unpack_from(content)[6:]):
        return WalDamage(0, (len(content) - _HEADER.size) // _FRAME.size) if any(content) else None
    size = _FRAME.size + page_size
    num_frames = (len(content) - _HEADER.size) // size
    frames = numpy.frombuffer(content, order, num_frames * size // 4, _HEADER.size).reshape(num_frames, size // 4)
    checked = numpy.hstack([frames[:, :2], frames[:, 6:]])
    num_pairs = checked.shape[1] // 2
    added = checked.astype(numpy.uint32) @ _weights(num_pairs)
    first = last = 0
    for number in range(1, num_frames + 1):
        _, commit, *rest = _FRAME.unpack_from(content, _HEADER.size + (number - 1) * size)
        same = [rest[0] == salts[0], rest[1] == salts[1]]
        if not first:
            sums = _continued(sums, num_pairs, added[number - 1])
            if all(same) and list(sums) == rest[2:]:
                continue
            first = number
        if (all(same) and commit) or any(same) != all(same):  # one salt matches alone only if a bit has flipped
            last = number
    return WalDamage(first, last - first + 1) if last else None


def _continued(sums: Sequence[int], num_pairs: int, added: Sequence[int]) -> tuple[int, int]:
    """Returns SQLite's checksum after more data. SQLite's checksum is linear in the previous checksum and the data.

    sums: the checksum before the data. num_pairs: the number of pairs of 32-bit integers in the data. added: the
    integers of the data times `_weights(num_pairs)`.
    """
    one, two, three = _fibonacci(num_pairs)
    first, second = sums
    return (one * first + two * second + int(added[0])) & _MASK, (two * first + three * second + int(added[1])) & _MASK


@functools.cache
def _weights(num_pairs: int) -> Any:
    """Returns the weights of 2·num_pairs integers in SQLite's two checksums: a uint32 array, (2·num_pairs, 2)."""
    import numpy

    rows = []
    for after in reversed(range(num_pairs)):  # SQLite: first += x + second; second += y + first
        one, two, three = _fibonacci(after)
        rows += [(one + two, two + three), (two, three)]
    return numpy.array(rows, numpy.uint64).astype(numpy.uint32)


@functools.cache
def _fibonacci(n: int) -> tuple[int, int, int]:
    """Returns the Fibonacci numbers F(2n-1), F(2n) and F(2n+1) modulo 2³².

    The power n of the matrix [[1, 1], [1, 2]] is [[F(2n-1), F(2n)], [F(2n), F(2n+1)]]. If SQLite reads n pairs of
    zeros, its two checksums are multiplied by this matrix.
    """
    one, two = 1, 0  # F(-1), F(0)
    for _ in range(n):
        one, two = (one + two) & _MASK, (one + 2 * two) & _MASK
    return one, two, (one + two) & _MASK
