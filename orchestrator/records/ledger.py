"""The ledger of a training group: an append-only log of what happened, from which its state is replayed.

One SQLite file with one writer. A row that `append` has returned survives a crash. Each row carries the time at which
it was written, which is the timestamp of everything derived from it, and a CRC-32 over itself and all rows before it,
so that damage inside a row is detected. The kinds of rows are the dataclasses of `records.rows`.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from orchestrator.base import failpoints
from orchestrator.base.files import replace_durably, write_atomically
from orchestrator.records.ledger_file import (
    DAMAGE,
    SCHEMA,
    check_database,
    checksum_at,
    connect_read_only,
    copy_database,
    explain,
    extend_checksum,
    has_tables,
    select_rows,
    set_aside,
    snapshot_path,
)
from orchestrator.records.rows import AnyRow, Event, Row, event_to_node
from supsup_core.errors import CorruptError, SupSupError


class FencedError(SupSupError):
    """Another writer has taken over this ledger, and the epoch in it is the fencing token. Nothing was written."""


class BehindError(FencedError):
    """The storage holds a newer snapshot of this ledger, which must be fetched before anything is written."""


class Entry(NamedTuple):
    """A row to be committed: its event, and bytes attached to it."""

    event: Event
    attachment: bytes | None = None


class LedgerWriter:
    """The writer of a ledger. Opening one fences off the writer before: its next append raises."""

    def __init__(self, path: Path, above: int = 0) -> None:
        """Open or create the ledger. CorruptError when the file is not a sound ledger.

        above: this writer's epoch is higher than this, and than that of the last writer.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            check_database(self._db)
            self._db.executescript(SCHEMA)
            self._db.execute("BEGIN IMMEDIATE")
            (last,) = self._db.execute("SELECT coalesce(max(epoch), 0) FROM writer").fetchone()
            self.epoch: int = max(last, above) + 1
            self._db.execute("DELETE FROM writer")
            self._db.execute("INSERT INTO writer VALUES (?)", (self.epoch,))
            self._db.execute("COMMIT")
        except DAMAGE as error:
            if hasattr(self, "_db"):
                self._db.close()
            raise explain(path, error) from error

    def append(self, event: Event) -> AnyRow:
        """Commit one row; it is on disk when this returns. FencedError when another writer took over."""
        return self.commit([Entry(event)])[0]

    def commit(self, entries: Iterable[Entry]) -> list[AnyRow]:
        """Commit rows, all or none; they are on disk when this returns. FencedError when another writer took over."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            (epoch,) = self._db.execute("SELECT epoch FROM writer").fetchone()
            if epoch != self.epoch:
                raise FencedError("another process has taken over this ledger; nothing more is written from here")
            newest = self._db.execute("SELECT seq, time_ms FROM rows ORDER BY seq DESC LIMIT 1").fetchone()
            seq, last = newest or (0, 0)
            now = max(last, time.time_ns() // 1_000_000)
            rows: list[AnyRow] = []
            checksum = checksum_at(self._db, seq)
            for number, entry in enumerate(entries, start=seq + 1):
                kind = entry.event.kind
                text = json.dumps(event_to_node(entry.event), separators=(",", ":"))
                checksum = extend_checksum(checksum, number, now, kind.encode(), text.encode())
                self._db.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", (number, now, kind, text, checksum))
                if entry.attachment is not None:
                    attached = (number, entry.attachment, zlib.crc32(entry.attachment))
                    self._db.execute("INSERT INTO attachments VALUES (?, ?, ?)", attached)
                rows.append(Row(number, now, entry.event))
            failpoints.reach("in_commit")
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.DatabaseError):
                raise explain(self._path, error) from error
            raise
        return rows

    def snapshot(self) -> None:
        """Copy the ledger, whole and consistent, to where `open_ledger` looks when the ledger is corrupt.

        SupSupError when the copy cannot be written. CorruptError when what was copied is not sound; the copy before
        stays then, so that a damaged ledger does not replace its own fallback.
        """
        target = snapshot_path(self._path)
        partial = target.with_name(target.name + ".partial")
        copy_database(self._db, self._path, partial)
        replace_durably(partial, target)

    def rows(self) -> list[AnyRow]:
        """Every row so far. CorruptError when one is not what was written."""
        try:
            return select_rows(self._db, 0)
        except DAMAGE as error:
            raise explain(self._path, error) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class LedgerReader:
    """Reads a ledger that may be being written; a missing file reads as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None

    def rows(self, after: int = 0) -> list[AnyRow]:
        """Committed rows with seq > after, in order. CorruptError when the file is not a ledger."""
        try:
            if self._db is None:
                if not self._path.exists():
                    return []
                self._db = connect_read_only(self._path, check_same_thread=False)
            if not after and not has_tables(self._db):
                return []  # its writer is just creating it
            return select_rows(self._db, after)
        except DAMAGE as error:
            if self._db is not None:
                self._db.close()
                self._db = None
            raise explain(self._path, error) from error

    def attachment(self, seq: int) -> bytes | None:
        """The bytes attached to a row that was read, verified; None where nothing is attached."""
        assert self._db is not None, "rows() comes first"
        found = self._db.execute("SELECT data, checksum FROM attachments WHERE seq = ?", (seq,)).fetchone()
        if found is None:
            return None
        if zlib.crc32(found[0]) != found[1]:
            raise CorruptError(f"{self._path}: the attachment of row {seq} is not what was written")
        return bytes(found[0])

    def verify(self) -> list[AnyRow]:
        """Every row, with all attachments verified too. CorruptError when anything is not what was written."""
        rows = self.rows()
        if self._db is not None:
            try:
                check_database(self._db)
                for (seq,) in self._db.execute("SELECT seq FROM attachments ORDER BY seq").fetchall():
                    self.attachment(seq)
            except DAMAGE as error:
                raise explain(self._path, error) from error
        return rows

    def __enter__(self) -> LedgerReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._db is not None:
            self._db.close()


class OpenedLedger(NamedTuple):
    """What `open_ledger` found: the writer, the rows, and where a corrupt ledger was put aside."""

    writer: LedgerWriter
    rows: list[AnyRow]
    set_aside: Path | None


def open_ledger(path: Path, above: int = 0) -> OpenedLedger:
    """A ledger's writer and its rows. A corrupt ledger is set aside, and its last snapshot, if any, replaces it.

    So does the snapshot where the ledger is missing or has lost all its rows. above: see LedgerWriter.
    """
    previous = snapshot_path(path)
    try:
        if previous.exists() and not (path.exists() and path.stat().st_size):
            raise CorruptError(f"{path}: missing or empty")
        writer = LedgerWriter(path, above)
        try:
            rows = writer.rows()
            if rows or not previous.exists():
                return OpenedLedger(writer, rows, None)
            raise CorruptError(f"{path}: has lost its rows")
        except CorruptError:
            writer.close()
            raise
    except CorruptError:
        aside = set_aside(path)
    if previous.exists():
        with contextlib.suppress(CorruptError):
            write_atomically(path, previous.read_bytes())
            writer = LedgerWriter(path, above)
            return OpenedLedger(writer, writer.rows(), aside)
        set_aside(path)
    writer = LedgerWriter(path, above)
    return OpenedLedger(writer, [], aside)
