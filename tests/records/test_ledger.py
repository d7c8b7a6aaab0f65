"""The ledger: committed rows are durable, damage is detected, and only one writer can append."""

from __future__ import annotations

import contextlib
import gc
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.base.failpoints import set_failpoint
from orchestrator.records.ledgers.last_commit import last_commit_path
from orchestrator.records.ledgers.ledger import Entry, FencedError, LedgerReader, LedgerWriter, open_ledger
from orchestrator.records.ledgers.ledger_file import set_aside, snapshot_path
from orchestrator.records.rows import AnyRow, JobRetried, ShardTrained
from supsup_core.errors import CorruptError, SupSupError
from tests.records.samples import EVENTS


def test_rows_are_read_in_order_with_times_that_never_decrease(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "ledger.sqlite")
    for event in EVENTS:
        writer.append(event)
    with LedgerReader(tmp_path / "ledger.sqlite") as reader:
        rows = reader.rows()
        assert [row.seq for row in rows] == list(range(1, len(EVENTS) + 1))
        assert [row.event for row in rows] == list(EVENTS)
        assert [row.event for row in reader.rows(after=3)] == list(EVENTS[3:])
    assert [row.time_ms for row in rows] == sorted(row.time_ms for row in rows)
    assert rows == writer.rows()
    writer.close()


def test_rows_of_other_kinds_are_verified_but_not_returned(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    writer = LedgerWriter(path)
    for event in EVENTS:
        writer.append(event)
    writer.append(JobRetried("ab", "a reason that is easy to find"))
    writer.close()
    with LedgerReader(path) as reader:
        found = reader.verify(kinds=(ShardTrained.kind,))
    assert [row.event for row in found] == [event for event in EVENTS if isinstance(event, ShardTrained)]
    path.write_bytes(path.read_bytes().replace(b"easy to find", b"easy to lose"))
    with LedgerReader(path) as reader, pytest.raises(CorruptError, match="its checksum does not match"):
        reader.verify(kinds=(ShardTrained.kind,))
    assert gc.isenabled()  # it pauses while rows are read


def test_a_ledger_without_rows_is_not_sound(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with LedgerReader(path) as reader, pytest.raises(CorruptError, match="is missing, or has no rows"):
        reader.verify()
    LedgerWriter(path).close()
    with LedgerReader(path) as reader, pytest.raises(CorruptError, match="is missing, or has no rows"):
        reader.verify()


def test_attachments_are_read_back_and_a_flipped_bit_in_one_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    writer = LedgerWriter(path)
    writer.commit([Entry(JobRetried("a", ""), b"attached to the first"), Entry(JobRetried("b", ""))])
    writer.close()
    with LedgerReader(path) as reader:
        reader.verify()
        assert [reader.attachment(seq) for seq in (1, 2)] == [b"attached to the first", None]
    flip(path, path.read_bytes().index(b"attached to the first"), 0)
    with LedgerReader(path) as reader, pytest.raises(CorruptError, match="the attachment of row 1"):
        reader.verify()


def test_a_commit_that_fails_writes_none_of_its_rows(tmp_path: Path) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("an error for this test")

    writer = LedgerWriter(tmp_path / "ledger.sqlite")
    writer.append(JobRetried("a", ""))
    set_failpoint("in_commit", fail)
    try:
        with pytest.raises(RuntimeError, match="for this test"):
            writer.commit([Entry(JobRetried("b", "")), Entry(JobRetried("c", ""))])
    finally:
        set_failpoint("in_commit", None)
    assert [row.event for row in writer.rows()] == [JobRetried("a", "")]
    assert writer.append(JobRetried("d", "")).seq == 2
    writer.close()


def test_a_second_writer_fences_the_first(tmp_path: Path) -> None:
    first = LedgerWriter(tmp_path / "ledger.sqlite")
    first.append(JobRetried("a", ""))
    second = LedgerWriter(tmp_path / "ledger.sqlite")
    with pytest.raises(FencedError):
        first.append(JobRetried("b", ""))
    second.append(JobRetried("c", ""))
    assert [row.event for row in second.rows()] == [JobRetried("a", ""), JobRetried("c", "")]
    first.close()
    second.close()


def test_a_row_that_append_returned_survives_kill_9(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from orchestrator.records.ledgers.ledger import LedgerWriter\n"
        "from orchestrator.records.rows import JobRetried\n"
        "w = LedgerWriter(Path(sys.argv[1]))\n"
        "n = 0\n"
        "while True:\n"
        "    print(w.append(JobRetried(str(n), 'x' * 500)).seq, flush=True); n += 1\n"
    )
    path = tmp_path / "ledger.sqlite"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = [int(process.stdout.readline()) for _ in range(40)][-1]
        os.kill(process.pid, 9)
        last = max([last, *(int(line) for line in process.stdout.read().splitlines() if line)])
    with LedgerReader(path) as reader:
        seqs = [row.seq for row in reader.rows()]
    assert seqs[:last] == list(range(1, last + 1))


@pytest.mark.parametrize("content", [b"", b"not a database at all", b"SQLite format 3\x00" + b"\xff" * 200])
def test_a_file_that_is_not_a_ledger_is_detected_and_can_be_set_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    if content:
        with pytest.raises(CorruptError, match="ledger"):
            LedgerWriter(path)
        with LedgerReader(path) as reader, pytest.raises(CorruptError):
            reader.rows()
        assert set_aside(path).read_bytes() == content
    LedgerWriter(path).close()


def test_a_missing_ledger_reads_as_empty(tmp_path: Path) -> None:
    with LedgerReader(tmp_path / "none.sqlite") as reader:
        assert reader.rows() == []


def test_a_ledger_that_is_temporarily_unusable_is_not_reported_as_corrupt(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").mkdir()
    with pytest.raises(SupSupError, match="cannot be used") as raised:
        LedgerWriter(tmp_path / "ledger.sqlite")
    assert not isinstance(raised.value, CorruptError)


def written(path: Path, count: int) -> list[AnyRow]:
    """Writes a ledger with `count` rows and a snapshot of the ledger. Returns the rows."""
    writer = LedgerWriter(path)
    for number in range(count):
        writer.append(JobRetried(str(number), "a reason that is long enough to fill pages" * 3))
    writer.snapshot()
    rows = writer.rows()
    writer.close()
    return rows


def flip(path: Path, offset: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(bytes(content))


def test_the_snapshot_restores_every_row_after_a_bit_flip_at_any_place(tmp_path: Path) -> None:
    """This includes the header and the page of the schema. SQLite reports damage in these with other errors."""
    path = tmp_path / "ledger.sqlite"
    rows = written(path, 12)
    whole = path.read_bytes()
    kept = snapshot_path(path).read_bytes()
    offsets = [*range(16, 100, 3), *range(100, 4096, 61), *range(4096, len(whole), 211)]
    fallbacks = 0
    for number, offset in enumerate(offsets):
        for old in tmp_path.glob("ledger*"):
            old.unlink()
        path.write_bytes(whole)
        snapshot_path(path).write_bytes(kept)
        flip(path, offset, number % 8)
        writer, found, aside = open_ledger(path)
        assert found == rows, offset
        fallbacks += aside is not None
        writer.append(JobRetried("more", ""))
        writer.close()
    assert fallbacks > 20


def test_a_ledger_that_has_lost_its_last_rows_is_refused_and_its_snapshot_replaces_it(tmp_path: Path) -> None:
    """For example, an older copy of the ledger was put back: all its rows are intact."""
    path = tmp_path / "ledger.sqlite"
    written(path, 3)
    older = path.read_bytes()
    for part in tmp_path.iterdir():
        part.unlink()
    rows = written(path, 12)
    path.write_bytes(older)
    last_commit_path(path).unlink()
    with LedgerReader(path) as reader, pytest.raises(CorruptError, match="3 rows, but its snapshot has 12"):
        reader.rows()
    opened = open_ledger(path)
    assert opened.rows == rows
    assert opened.set_aside is not None
    with contextlib.closing(sqlite3.connect(opened.set_aside)) as db:
        assert db.execute("SELECT count(*) FROM rows").fetchone() == (3,)
    opened.writer.close()


def test_a_damaged_snapshot_proves_no_loss(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    written(path, 12)
    longer = snapshot_path(path).read_bytes()
    for part in tmp_path.iterdir():
        part.unlink()
    rows = written(path, 3)
    for content in (longer.replace(b"long enough", b"Long enough"), b"", b"not a database" * 400):
        snapshot_path(path).write_bytes(content)
        with LedgerReader(path) as reader:
            assert reader.rows() == rows


def test_a_damaged_ledger_does_not_replace_its_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    rows = written(path, 200)
    flip(path, path.read_bytes().index(b"enough to fill"), 0)
    writer = LedgerWriter(path)  # opening reads only the last row
    writer.append(JobRetried("later", ""))
    with pytest.raises(CorruptError, match="damaged on disk"):
        writer.snapshot()
    writer.close()
    writer, found, aside = open_ledger(path)
    assert (found, aside is not None) == (rows, True)
    writer.close()


def test_a_commit_to_a_ledger_that_stays_locked_raises_a_supsup_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.records.ledgers.ledger.LOCK_SECONDS", 0.1)
    path = tmp_path / "ledger.sqlite"
    writer = LedgerWriter(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SupSupError, match="locked"):
            writer.append(EVENTS[0])
        other.execute("ROLLBACK")
    writer.append(EVENTS[0])
    writer.close()


def test_a_ledger_that_cannot_be_read_once_is_not_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.sqlite"
    rows = written(path, 3)
    answers = iter([CorruptError("an error for this test")])

    def check(db: sqlite3.Connection) -> None:
        for error in answers:
            raise error

    monkeypatch.setattr("orchestrator.records.ledgers.ledger.check_database", check)
    opened = open_ledger(path)
    assert (opened.rows, opened.set_aside) == (rows, None)
    opened.writer.close()
