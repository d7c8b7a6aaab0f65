"""Copies of ledgers, and the epochs of their writers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.records.ledgers.last_commit import last_commit_path
from orchestrator.records.ledgers.ledger import LedgerReader, LedgerWriter
from orchestrator.records.ledgers.ledger_file import (
    connect_read_only,
    explain,
    extend_checksum,
    merge_side_files,
    read_copy,
    read_epoch,
)
from orchestrator.records.rows import JobRetried
from supsup_core.errors import CorruptError
from tests.records.samples import EVENTS


def test_a_new_writer_epoch_is_larger_than_all_known_epochs(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    assert read_epoch(path) == 0
    LedgerWriter(path, above=7).close()
    writer = LedgerWriter(path)
    writer.append(JobRetried("a", ""))
    assert writer.epoch == read_epoch(path) == 9
    (tmp_path / "copy.sqlite").write_bytes(read_copy(path))
    assert read_epoch(tmp_path / "copy.sqlite") == 9
    with LedgerReader(tmp_path / "copy.sqlite") as reader:
        assert reader.rows() == writer.rows()
    writer.close()


def test_a_damaged_ledger_is_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    writer = LedgerWriter(path)
    writer.append(JobRetried("a", "a reason that is easy to find"))
    writer.close()
    path.write_bytes(path.read_bytes().replace(b"easy to find", b"easy to lose"))
    with pytest.raises(CorruptError, match="damaged on disk"):
        read_copy(path)


def test_the_error_for_a_row_of_a_later_version_contains_the_rows_number(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    LedgerWriter(path).close()
    with closing(sqlite3.connect(path)) as db:
        checksum = extend_checksum(0, 1, 5, b"later", b"{}")
        db.execute("INSERT INTO rows VALUES (1, 5, 'later', '{}', ?)", (checksum,))
        db.commit()
    with LedgerReader(path) as reader, pytest.raises(CorruptError, match="row 1: this version of supsup knows no row"):
        reader.rows()


def test_merging_side_files_leaves_one_file_with_all_rows_that_can_be_written_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.sqlite"
    writer, reader = LedgerWriter(path), LedgerReader(path)
    wanted = [writer.append(event) for event in EVENTS]
    assert reader.rows() == wanted
    writer.close()
    merge_side_files(path)  # the reader is still open
    assert path.with_name("ledger.sqlite-wal").exists()
    reader.close()
    merge_side_files(path)
    names = {path.name, last_commit_path(path).name}
    assert {item.name for item in tmp_path.iterdir()} == names
    with LedgerReader(path) as again:
        assert again.rows() == wanted
    assert {item.name for item in tmp_path.iterdir()} == names  # reading makes no side file
    writer = LedgerWriter(path)
    assert writer.rows() == wanted
    writer.append(EVENTS[0])
    writer.close()
    merge_side_files(tmp_path / "missing.sqlite")
    assert not (tmp_path / "missing.sqlite").exists()


def test_a_sound_ledger_that_sqlite_could_only_open_for_reading_is_not_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    LedgerWriter(path).close()
    with closing(connect_read_only(path)) as db, pytest.raises(sqlite3.OperationalError) as raised:
        db.execute("DELETE FROM rows")
    assert not isinstance(explain(path, raised.value), CorruptError)
