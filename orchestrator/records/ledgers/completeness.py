"""Checks that a ledger has all rows that were committed to it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from orchestrator.base.output_folder import GroupFolder
from orchestrator.records.ledgers.last_commit import LastCommit, last_commit_path, read_last_commit
from orchestrator.records.ledgers.ledger_file import (
    DAMAGE,
    checksum_at,
    connect_read_only,
    last_epoch,
    last_seq,
    select_rows,
    snapshot_path,
)
from orchestrator.records.rows import AnyRow, GroupPlanned
from supsup_core.errors import CorruptError


def of_group(path: Path, rows: list[AnyRow]) -> list[AnyRow]:
    """Returns the rows of a ledger. Raises CorruptError if the rows belong to another group than the folder."""
    folder = GroupFolder.of_ledger(path)
    planned = {row.event.group.group_id for row in rows if isinstance(row.event, GroupPlanned)}
    if folder is not None and (others := planned - {folder.group_id}):
        raise CorruptError(f"it belongs to another training group, {others.pop()}")
    return rows


def note_of(path: Path) -> LastCommit | None:
    """Returns the note of a ledger's last commit, or None if the note is missing or damaged, or for a snapshot."""
    if path == snapshot_path(path):
        return None
    try:
        return read_last_commit(path)
    except CorruptError:
        return None


def check_never_written(path: Path) -> None:
    """Raises CorruptError if rows were committed to a ledger that is missing."""
    if path != snapshot_path(path) and (snapshot_path(path).exists() or last_commit_path(path).exists()):
        raise CorruptError(f"{path}: the ledger is missing, although rows were committed to it")


def check_complete(path: Path, db: sqlite3.Connection, noted: LastCommit | None) -> None:
    """Raises CorruptError if a ledger lacks the last row that was committed to it, or a row of its snapshot.

    db: a connection to the ledger. noted: the content of the file `ledger.last-commit`, which names the last
    committed row, read before the first use of `db`. Ignores the note of an earlier writer, because the ledger may
    have been restored since. Ignores a damaged snapshot, and a snapshot of another group.
    """
    num_rows = last_seq(db)
    if last_seq(db, "attachments") > num_rows:  # for example, the -wal belongs to a newer file
        raise CorruptError("it has attachments of rows that are lost")
    _check_noted(db, num_rows, noted)
    previous = snapshot_path(path)
    if path == previous or not previous.exists():
        return
    num_kept = 0
    with contextlib.suppress(*DAMAGE), contextlib.closing(connect_read_only(previous)) as snapshot:
        if last_seq(snapshot) > num_rows:
            num_kept = len(of_group(path, select_rows(snapshot, 0)))
            num_rows = last_seq(db)  # a running writer may have added rows, and then taken the snapshot
    if num_kept > num_rows:
        raise CorruptError(f"it has {num_rows} rows, but its snapshot has {num_kept}, so its last rows are lost")


def _check_noted(db: sqlite3.Connection, num_rows: int, noted: LastCommit | None) -> None:
    """Raises CorruptError if a ledger lacks the last row that was committed to it.

    num_rows: the number of rows of the ledger. noted: the content of the file `ledger.last-commit`, if it is intact.
    """
    if noted is None or noted.epoch < last_epoch(db):
        return
    if num_rows < noted.seq:
        raise CorruptError(f"it has {num_rows} rows, but {noted.seq} were committed, so its last rows are lost")
    if checksum_at(db, noted.seq) != noted.checksum:
        raise CorruptError(f"its row {noted.seq} is not the row that was committed")


def check_last_rows(path: Path) -> None:
    """Raises CorruptError if a readable ledger lacks the row that the note of its last commit names."""
    noted = note_of(path)
    if noted is None or not path.exists():
        return
    with contextlib.suppress(sqlite3.Error, ValueError, TypeError), contextlib.closing(connect_read_only(path)) as db:
        _check_noted(db, last_seq(db), noted)
