"""Reads and writes ledgers. A ledger is the append-only log of a training group's events.

Replaying the events gives the group's state (see `GroupState`). A ledger is one SQLite file with one writer. A row
survives a crash once `append` or `commit` has returned it. Each row holds the time at which it was written, and a
CRC-32 checksum over itself and all earlier rows, which detects damage. `records.rows` defines the kinds of events.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from orchestrator.base import failpoints
from orchestrator.base.files import replace_durably, write_atomically
from orchestrator.records.ledgers.completeness import (
    check_complete,
    check_last_rows,
    check_never_written,
    note_of,
    of_group,
)
from orchestrator.records.ledgers.last_commit import LastCommit, LastCommitWriter
from orchestrator.records.ledgers.ledger_file import (
    DAMAGE,
    LOCK_SECONDS,
    SCHEMA,
    check_database,
    connect_read_only,
    copy_aside,
    copy_database,
    explain,
    extend_checksum,
    has_tables,
    last_seq,
    select_rows,
    set_aside,
    snapshot_path,
)
from orchestrator.records.ledgers.wal_damage import check_wal
from orchestrator.records.rows import AnyRow, Event, Row, event_to_node
from supsup_core.errors import CorruptError, SupSupError

_ENCODER = json.JSONEncoder(separators=(",", ":"))

_NEWEST = """
SELECT epoch, coalesce(seq, 0), coalesce(time_ms, 0), coalesce(checksum, 0)
FROM writer LEFT JOIN rows ON seq = (SELECT max(seq) FROM rows)
"""
"""Selects the writer's epoch, and the number, time and checksum of the newest row; 0 if there are no rows."""


class FencedError(SupSupError):
    """Another writer has taken over this ledger, so nothing was written. The ledger's epoch is the fencing token."""


class BehindError(FencedError):
    """The storage holds a newer snapshot of this ledger. Fetch the snapshot before you write to the ledger."""


class Entry(NamedTuple):
    """A row to be committed: its event, and optional bytes that are attached to the row."""

    event: Event
    attachment: bytes | None = None


class LedgerWriter:
    """Writes a ledger. Opening a writer fences off the previous writer, whose next commit raises FencedError."""

    def __init__(self, path: Path, above: int = 0) -> None:
        """Opens the ledger, or creates it.

        above: the highest epoch of the ledger's snapshots in the storage, or 0. The new writer's epoch is higher than
        three numbers: `above`, the epoch of the file's last writer, and the epoch in the note of the last commit.
        Raises CorruptError if the file is not an intact ledger, and SupSupError if the file cannot be used now (full
        disk, lock, no permission).
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._note = LastCommitWriter(path)
        noted = note_of(path)
        try:
            self._db = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            check_database(self._db)
            self._db.executescript(SCHEMA)
            self._db.execute("BEGIN IMMEDIATE")
            (last,) = self._db.execute("SELECT coalesce(max(epoch), 0) FROM writer").fetchone()
            self.epoch: int = max(last, above, noted.epoch if noted else 0) + 1
            self._db.execute("DELETE FROM writer")
            self._db.execute("INSERT INTO writer VALUES (?)", (self.epoch,))
            self._db.execute("COMMIT")
        except DAMAGE as error:
            if hasattr(self, "_db"):
                self._db.close()
            raise explain(path, error) from error

    def append(self, event: Event) -> AnyRow:
        """Commits one row to disk and returns it. Raises FencedError if another writer has taken over."""
        return self.commit([Entry(event)])[0]

    def commit(self, entries: Iterable[Entry]) -> list[AnyRow]:
        """Commits rows to disk in one transaction and returns them.

        Raises FencedError, and writes no row, if another writer has taken over. Raises SupSupError if the file cannot
        be written or stays locked, or if the note of the commit cannot be written.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            epoch, seq, last, checksum = self._db.execute(_NEWEST).fetchone()
            if epoch != self.epoch:
                raise FencedError("another process has taken over this ledger; this process writes nothing more to it")
            now = max(last, time.time_ns() // 1_000_000)
            rows: list[AnyRow] = []
            for number, entry in enumerate(entries, start=seq + 1):
                kind = entry.event.kind
                text = _ENCODER.encode(event_to_node(entry.event))
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
        if rows:
            self._note.write(LastCommit(self.epoch, rows[-1].seq, checksum))
        return rows

    def snapshot(self) -> None:
        """Copies the ledger to the snapshot file beside it. `open_ledger` uses the snapshot if the ledger is corrupt.

        Raises SupSupError if the snapshot cannot be written, and CorruptError if the copy is not intact. After either
        error, the previous snapshot is kept, so that a damaged ledger never overwrites its last intact copy.
        """
        target = snapshot_path(self._path)
        partial = target.with_name(target.name + ".partial")
        copy_database(self._db, self._path, partial)
        replace_durably(partial, target)

    def rows(self) -> list[AnyRow]:
        """Returns all rows. Raises CorruptError if a row is damaged or lost, or if the rows belong to another group."""
        try:
            rows = of_group(self._path, select_rows(self._db, 0))
            check_complete(self._path, self._db, None)
            return rows
        except DAMAGE as error:
            raise explain(self._path, error) from error

    def close(self) -> None:
        """Closes the file."""
        self._db.close()
        self._note.close()


class LedgerReader:
    """Reads a ledger, even while another process writes to it. A ledger without a file has no rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None

    def rows(self, after: int = 0, kinds: Collection[str] | None = None) -> list[AnyRow]:
        """Returns the committed rows with seq > `after`, in order.

        kinds: verifies all of these rows, but returns only those with events of these kinds; None means all kinds.
        Raises CorruptError if the ledger is damaged, is missing although rows were committed to it, has lost its last
        rows, or belongs to another training group.
        """
        noted = None
        if is_opened := self._db is None:
            noted = note_of(self._path)  # read before the ledger, because a running writer may add rows meanwhile
            if not self._path.exists():
                check_never_written(self._path)
                return []
        try:
            if self._db is None:
                check_wal(self._path)
                self._db = connect_read_only(self._path, check_same_thread=False)
            if not after and not has_tables(self._db):
                rows: list[AnyRow] = []  # the writer is still creating the tables
            else:
                rows = of_group(self._path, select_rows(self._db, after, kinds))
            if is_opened:
                check_complete(self._path, self._db, noted)
            return rows
        except DAMAGE as error:
            if self._db is not None:
                self._db.close()
                self._db = None
            raise explain(self._path, error) from error

    def attachment(self, seq: int) -> bytes | None:
        """Returns the verified bytes attached to row `seq`, or None if the row has no attachment. Call `rows` first.

        Raises CorruptError if the bytes do not match their checksum.
        """
        assert self._db is not None, "call rows() before attachment()"
        try:
            found = self._db.execute("SELECT data, checksum FROM attachments WHERE seq = ?", (seq,)).fetchone()
        except DAMAGE as error:
            raise explain(self._path, error) from error
        if found is None:
            return None
        if zlib.crc32(found[0]) != found[1]:
            raise CorruptError(f"{self._path}: the attachment of row {seq} is corrupt: its checksum does not match")
        return bytes(found[0])

    def verify(self, kinds: Collection[str] | None = None) -> list[AnyRow]:
        """Verifies all rows and attachments, and returns all rows, or only those with events of some `kinds`.

        Raises CorruptError if the ledger is damaged, is missing or has no rows.
        """
        rows, num_rows = self.rows(kinds=kinds), 0
        if self._db is not None:
            try:
                num_rows = last_seq(self._db)
                check_database(self._db)
                seqs = self._db.execute("SELECT seq FROM attachments ORDER BY seq") if has_tables(self._db) else ()
                for (seq,) in list(seqs):
                    self.attachment(seq)
            except DAMAGE as error:
                raise explain(self._path, error) from error
        if not num_rows:
            raise CorruptError(f"{self._path}: the ledger is missing, or has no rows")
        return rows

    def __enter__(self) -> LedgerReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file, if it is open."""
        if self._db is not None:
            self._db.close()
            self._db = None


class OpenedLedger(NamedTuple):
    """The result of `open_ledger`.

    `set_aside`: the path at which a corrupt ledger is kept; None if the ledger was intact.
    """

    writer: LedgerWriter
    rows: list[AnyRow]
    set_aside: Path | None


def open_ledger(path: Path, above: int = 0) -> OpenedLedger:
    """Opens a ledger for writing, and restores it from its snapshot if necessary.

    Keeps a corrupt ledger under another name. If the ledger is corrupt or missing, an intact snapshot replaces it. If
    the ledger has only lost its last rows, its other rows are kept, unless the snapshot has more rows. If there is no
    intact snapshot, the ledger starts empty. above: see `LedgerWriter.__init__`.
    """
    previous = snapshot_path(path)
    aside = None
    try:
        check_wal(path)
        check_last_rows(path)
    except CorruptError:
        aside = copy_aside(path)
    for tries_left in (1, 0):  # a read that failed once is no damage
        try:
            if previous.exists() and not (path.exists() and path.stat().st_size):
                raise CorruptError(f"{path}: missing or empty")
            writer, rows = _opened(path, above)
        except CorruptError:
            if not tries_left:
                aside = set_aside(path)
        else:
            return OpenedLedger(writer, rows, aside)
    if previous.exists():
        with contextlib.suppress(CorruptError):
            write_atomically(path, previous.read_bytes())
            return OpenedLedger(*_opened(path, above), aside)
        set_aside(path)
    return OpenedLedger(LedgerWriter(path, above), [], aside)


def _opened(path: Path, above: int) -> tuple[LedgerWriter, list[AnyRow]]:
    """Returns a writer of a ledger, and all its rows. Raises CorruptError if the ledger is corrupt."""
    writer = LedgerWriter(path, above)
    try:
        return writer, writer.rows()
    except SupSupError:
        writer.close()
        raise
