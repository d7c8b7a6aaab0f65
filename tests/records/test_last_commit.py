"""The note of a ledger's last commit: it detects lost rows, and an interrupted or outdated note proves nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from orchestrator.records.ledgers.last_commit import last_commit_path, read_last_commit
from orchestrator.records.ledgers.ledger import LedgerReader, LedgerWriter, open_ledger
from orchestrator.records.rows import JobRetried
from supsup_core.errors import CorruptError, SupSupError


def test_a_ledger_that_lacks_the_last_noted_row_is_refused_and_keeps_its_other_rows(tmp_path: Path) -> None:
    """Without a snapshot, only the note tells that an older file was put back, or that the -wal is lost."""
    path = tmp_path / "ledger.sqlite"
    writer = LedgerWriter(path)
    rows = [writer.append(JobRetried(str(number), "")) for number in range(3)]
    with contextlib.closing(sqlite3.connect(path)) as db, contextlib.closing(sqlite3.connect(tmp_path / "x")) as copy:
        db.backup(copy)
    writer.append(JobRetried("lost", ""))
    writer.close()
    (tmp_path / "x").replace(path)
    with LedgerReader(path) as reader, pytest.raises(CorruptError, match="3 rows, but 4 were committed"):
        reader.rows()
    opened = open_ledger(path)
    assert opened.rows == rows
    assert opened.set_aside is not None
    opened.writer.append(JobRetried("again", ""))
    opened.writer.close()
    with LedgerReader(path) as reader:
        assert len(reader.rows()) == 4


def test_a_row_in_the_place_of_the_last_noted_row_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "ledger.sqlite", tmp_path / "other" / "ledger.sqlite"
    for ledger, key in ((path, "a"), (other, "b")):
        writer = LedgerWriter(ledger)
        writer.append(JobRetried(key, ""))
        writer.close()
    other.replace(path)
    with LedgerReader(path) as reader, pytest.raises(CorruptError, match="row 1 is not the row that was committed"):
        reader.rows()


def test_a_missing_ledger_with_committed_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    writer = LedgerWriter(path)
    writer.append(JobRetried("a", ""))
    writer.close()
    path.unlink()
    with LedgerReader(path) as reader, pytest.raises(CorruptError, match="missing, although rows were committed"):
        reader.rows()
    opened = open_ledger(path)
    assert opened.rows == []
    opened.writer.append(JobRetried("a", ""))
    opened.writer.close()
    with LedgerReader(path) as reader:
        assert len(reader.rows()) == 1


def test_a_damaged_or_older_note_proves_no_loss(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    writer = LedgerWriter(path)
    for number in range(3):
        writer.append(JobRetried(str(number), ""))
    writer.close()
    note = last_commit_path(path)
    older = note.read_bytes()
    writer = LedgerWriter(path)
    assert writer.epoch == 2
    writer.append(JobRetried("a", ""))
    writer.close()
    whole = note.read_bytes()
    half = len(whole) // 2
    damaged = [change(change(whole, place), half + place) for place in range(half)]
    for content in [older, b"", *(change(whole, place) for place in range(len(whole))), *damaged]:
        note.write_bytes(content)
        with LedgerReader(path) as reader:
            assert len(reader.rows()) == 4
    for content in damaged:
        note.write_bytes(content)
        with pytest.raises(CorruptError, match="damaged"):
            read_last_commit(path)


@pytest.mark.parametrize("length", [0, 1, 40, 60, 82])
def test_an_interrupted_note_names_the_commit_before(tmp_path: Path, length: int) -> None:
    """A process that dies while it writes a line of the note leaves a part of the line."""
    path = tmp_path / "ledger.sqlite"
    note = last_commit_path(path)
    writer = LedgerWriter(path)
    for number in range(1, 6):
        before = note.read_bytes() if note.exists() else b""
        known = read_last_commit(path)
        writer.append(JobRetried(str(number), ""))
        after = note.read_bytes()
        (start,) = {start for start in (0, 82) if after[start : start + 82] != before[start : start + 82]}
        part = start + length
        note.write_bytes(after[:part] + before[part:] if start < len(before) else after[:part])
        found = read_last_commit(path)
        assert (found and found.seq) == (number if length == 82 else known and known.seq)
        note.write_bytes(after)
    writer.close()


def change(content: bytes, place: int) -> bytes:
    """Flips a bit in the byte at `place`."""
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_a_writer_that_was_replaced_by_another_notes_nothing_that_counts(tmp_path: Path) -> None:
    """The first writer is stopped between its commit and its note, and writes the note much later."""
    path = tmp_path / "ledger.sqlite"
    first = LedgerWriter(path)
    first.append(JobRetried("a", ""))
    late = last_commit_path(path).read_bytes()
    second = LedgerWriter(path)
    second.append(JobRetried("b", ""))
    last_commit_path(path).write_bytes(late)
    with LedgerReader(path) as reader:
        assert len(reader.rows()) == 2
    first.close()
    second.close()


def test_a_commit_that_cannot_be_noted_raises_an_error_and_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    writer = LedgerWriter(path)
    last_commit_path(path).mkdir()
    with pytest.raises(SupSupError, match="last-commit: cannot be written"):
        writer.append(JobRetried("a", ""))
    writer.close()
    last_commit_path(path).rmdir()
    with LedgerReader(path) as reader:
        assert len(reader.rows()) == 1
