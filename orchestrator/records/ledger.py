"""The ledger of a training group: what happened, committed. State is its replay.

One SQLite file, one writer, rows only ever added. A row that `append` returned is on disk for good. Each
row carries the time it was written, which is the timestamp of everything projected from it, and a CRC-32 over
itself and all rows before it, so that damage within a row is found out too.

Kinds of rows, and their payloads:
  plan      the group (Group.to_node), and the machine and versions it ran on; starts each launch
  trained   key, the artifact's facts (task, accuracy, curve, num_bytes, …) and sha256; worker,
            started_ms and seconds, which are None when the artifact was found in the store
  evaluated the same of an evaluation (facts: task, results)
  point     run_id, num_learned, metrics, keys: all evaluations of one evaluation point are in
  decision  NNs: round, ordinal, stream, task, segment, what was decided (nns.Decision), loss, seconds and
            latency; the row's attachment holds the slopes that were judged (float32)
  met       NNs: num_learned, metrics: the books of allocation after so many tasks' worth of data
  due       NNs: num_learned, num_tasks, numbers, keys, right: the masks that an evaluation point is to test
  forked    NNs: sweep, group_id, at_task: the rows up to the first commit are that run's
  committed NNs: round, versions, and what the commit cost; all before it is safe on disk
  lost      key, file, reason: an artifact turned out missing or corrupt; its task is to be trained again
  retried   key, reason: a worker died at it; free: with its whole node, which does not count against the job
  split     key, reason: the tasks of a job did not fit into memory together; from then on its halves are jobs
  stalled   key, what, worker, seconds, usual_seconds: a job takes far longer than others of its kind did
  failed    key, what, error, traceback
  cancelled key, task: the user has given this task up; what builds on it is not done either
  stopped   num_learned: a search has given its trial up, where it was judged last, or the user the group; diverged,
            when that is why
  retry     tasks: the user has taken up again what had failed or was stopped, and of cancelled tasks these, or all
            where none are named
  ended     status: done, stopped or failed; without one, the launch was interrupted
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from orchestrator.base.files import replace_durably, write_atomically
from supsup_core.errors import CorruptError, SupSupError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS writer (epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS rows (
    seq INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS attachments (seq INTEGER PRIMARY KEY, data BLOB NOT NULL, checksum INTEGER NOT NULL);
"""


class FencedError(SupSupError):
    """Another writer has taken over this ledger; nothing was written."""


class BehindError(FencedError):
    """Another writer has stored what this ledger does not say; it is to be fetched before anything is written."""


Entry = tuple[str, dict[str, Any], bytes | None]
"""A row to be committed: its kind, its payload, and what is attached to it."""


@dataclass(frozen=True)
class Row:
    """One committed event. `seq` counts from 1 without gaps; `time_ms` is Unix time, never decreasing."""

    seq: int
    time_ms: int
    kind: str
    payload: dict[str, Any]


class LedgerWriter:
    """The writer of a ledger. Opening one fences off whoever wrote before: their next append raises."""

    def __init__(self, path: Path, above: int = 0) -> None:
        """Open or create the ledger. CorruptError when the file is not a sound ledger. above: an epoch that this
        writer's is to be higher than, beside the last one's."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            _check(self._db)
            self._db.executescript(_SCHEMA)
            self._db.execute("BEGIN IMMEDIATE")
            (last,) = self._db.execute("SELECT coalesce(max(epoch), 0) FROM writer").fetchone()
            self.epoch: int = max(last, above) + 1
            self._db.execute("DELETE FROM writer")
            self._db.execute("INSERT INTO writer VALUES (?)", (self.epoch,))
            self._db.execute("COMMIT")
        except _DAMAGE as error:
            if hasattr(self, "_db"):
                self._db.close()
            raise _explained(path, error) from error

    def append(self, kind: str, **payload: Any) -> Row:
        """Commit one row; it is on disk when this returns. FencedError when another writer took over."""
        return self.commit([(kind, payload, None)])[0]

    def commit(self, entries: Sequence[Entry]) -> list[Row]:
        """Commit rows (kind, payload, attachment or None), all or none; on disk when this returns.

        FencedError when another writer took over.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            (epoch,) = self._db.execute("SELECT epoch FROM writer").fetchone()
            if epoch != self.epoch:
                raise FencedError("another process has taken over this ledger")
            newest = self._db.execute("SELECT seq, time_ms FROM rows ORDER BY seq DESC LIMIT 1").fetchone()
            seq, last = newest or (0, 0)
            now = max(last, time.time_ns() // 1_000_000)
            rows = []
            checksum = _checksum_at(self._db, seq)
            for number, (kind, payload, attachment) in enumerate(entries, start=seq + 1):
                text = json.dumps(payload, separators=(",", ":"))
                checksum = _extend(checksum, number, now, kind.encode(), text.encode())
                self._db.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", (number, now, kind, text, checksum))
                if attachment is not None:
                    kept = (number, attachment, zlib.crc32(attachment))
                    self._db.execute("INSERT INTO attachments VALUES (?, ?, ?)", kept)
                rows.append(Row(number, now, kind, payload))
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.DatabaseError):
                raise _explained(self._path, error) from error
            raise
        return rows

    def snapshot(self) -> None:
        """Copy the ledger, whole and consistent, to where `open_ledger` looks when the ledger is corrupt.

        SupSupError when it cannot be written; CorruptError, and the copy before stays, when what was copied is not
        sound: a damaged ledger must not take its own fallback's place.
        """
        target = snapshot_path(self._path)
        partial = target.with_name(target.name + ".partial")
        _copy(self._db, self._path, partial)
        replace_durably(partial, target)

    def rows(self) -> list[Row]:
        """Every row so far. CorruptError when one is not what was written."""
        try:
            return _select(self._db, 0)
        except _DAMAGE as error:
            raise _explained(self._path, error) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class LedgerReader:
    """Reads a ledger that may be being written; a missing file reads as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None

    def rows(self, after: int = 0) -> list[Row]:
        """Committed rows with seq > after, in order. CorruptError when the file is not a ledger."""
        try:
            if self._db is None:
                if not self._path.exists():
                    return []
                self._db = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=30, check_same_thread=False)
            return _select(self._db, after)
        except _DAMAGE as error:
            if "no such table" in str(error):
                return []
            if self._db is not None:
                self._db.close()
                self._db = None
            raise _explained(self._path, error) from error

    def attachment(self, seq: int) -> bytes | None:
        """The attachment of a row that was read, verified, or None."""
        assert self._db is not None, "rows() comes first"
        found = self._db.execute("SELECT data, checksum FROM attachments WHERE seq = ?", (seq,)).fetchone()
        if found is None:
            return None
        if zlib.crc32(found[0]) != found[1]:
            raise CorruptError(f"{self._path}: the attachment of row {seq} is not what was written")
        return bytes(found[0])

    def verify(self) -> list[Row]:
        """Every row, with all that is attached to them verified too; CorruptError when anything is not what was
        written."""
        rows = self.rows()
        if self._db is not None:
            try:
                _check(self._db)
                for (seq,) in self._db.execute("SELECT seq FROM attachments ORDER BY seq").fetchall():
                    self.attachment(seq)
            except _DAMAGE as error:
                raise _explained(self._path, error) from error
        return rows

    def __enter__(self) -> LedgerReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._db is not None:
            self._db.close()


_DAMAGE = (sqlite3.Error, CorruptError, ValueError, TypeError)
"""What reading a damaged file can raise: SQLite's own errors, and values that are not what was written."""

_FOR_NOW = (
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
)
"""SQLite's codes for what has nothing to do with the file's content."""


def _check(db: sqlite3.Connection) -> None:
    """CorruptError unless SQLite finds the file sound."""
    if db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
        raise CorruptError("quick_check failed")


def _explained(path: Path, error: Exception) -> SupSupError:
    """A corrupt file told from one that cannot be used for now (a full disk, no permission, a lock)."""
    code = getattr(error, "sqlite_errorcode", None)
    for_now = code is None or code & 0xFF in _FOR_NOW
    if code is not None and code & 0xFF == sqlite3.SQLITE_READONLY and os.access(path, os.W_OK):
        for_now = False  # the file may be written; it says itself that it may not
    if isinstance(error, sqlite3.OperationalError) and for_now:
        return SupSupError(f"{path}: the ledger cannot be used ({error}); mend that and resume")
    return CorruptError(f"{path}: not a sound ledger ({error})")


def _extend(checksum: int, seq: int, time_ms: int, kind: bytes, payload: bytes) -> int:
    """The checksum of a row, from that of the row before."""
    return zlib.crc32(b"%d %d %s %s" % (seq, time_ms, kind, payload), checksum)


def _checksum_at(db: sqlite3.Connection, seq: int) -> int:
    found = db.execute("SELECT checksum FROM rows WHERE seq = ?", (seq,)).fetchone()
    return int(found[0]) if found else 0


def _select(db: sqlite3.Connection, after: int) -> list[Row]:
    """Rows with seq > after, verified; CorruptError when one is not what was written."""
    checksum = _checksum_at(db, after)
    raw = (
        "SELECT seq, time_ms, CAST(kind AS BLOB), CAST(payload AS BLOB), checksum FROM rows WHERE seq > ? ORDER BY seq"
    )
    rows = []
    for expected, (seq, time_ms, kind, payload, claimed) in enumerate(db.execute(raw, (after,)), start=after + 1):
        checksum = _extend(checksum, seq, time_ms, kind, payload)
        if seq != expected or checksum != claimed:
            raise CorruptError(f"row {seq} is not what was written")
        rows.append(Row(seq, time_ms, kind.decode(), _parsed(payload)))
    return rows


def _parsed(payload: bytes) -> Any:
    """A payload's value. orjson takes half the time, and knows no NaN."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return json.loads(payload)


def _copy(db: sqlite3.Connection, path: Path, target: Path) -> None:
    """Copy the ledger that is open, whole and consistent. CorruptError, and no copy, when it is not sound."""
    try:
        target.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(target)) as copy:
            db.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            try:
                _check(copy)
                _select(copy, 0)
            except _DAMAGE as error:
                raise CorruptError(
                    f"{path}: damaged on disk ({error}); resume, and its last copy takes its place"
                ) from error
    except (sqlite3.Error, OSError) as error:
        raise SupSupError(f"{target}: the ledger cannot be copied ({error}); mend that and resume") from error


def copy_of(path: Path) -> bytes:
    """A ledger's content as one file, whole and consistent, whoever writes it. CorruptError when it is not sound."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / path.name
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
            _copy(db, path, target)
        return target.read_bytes()


def epoch_of(path: Path) -> int:
    """The epoch of a ledger's last writer; 0 where there is none, or it cannot be told."""
    if not path.exists():
        return 0
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
            (found,) = db.execute("SELECT coalesce(max(epoch), 0) FROM writer").fetchone()
            return int(found)
    except (sqlite3.Error, TypeError, ValueError):
        return 0


def set_aside(path: Path) -> Path:
    """Move a corrupt ledger and its side files out of the way, keeping them; returns the new path."""
    number = sum(1 for _ in path.parent.glob(f"{path.name}.corrupt*"))
    aside = path.with_name(f"{path.name}.corrupt{number}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def snapshot_path(path: Path) -> Path:
    """Where the last snapshot of a ledger is."""
    return path.with_name("ledger.previous.sqlite")


def open_ledger(path: Path, above: int = 0) -> tuple[LedgerWriter, list[Row], Path | None]:
    """A ledger's writer and its rows; a corrupt one is set aside and its last snapshot, if any, takes its place.

    So does the snapshot where the ledger is missing or has lost all its rows. The third value is where a bad
    ledger was put. `above`: see LedgerWriter.
    """
    previous = snapshot_path(path)
    try:
        if previous.exists() and not (path.exists() and path.stat().st_size):
            raise CorruptError(f"{path}: missing or empty")
        writer = LedgerWriter(path, above)
        try:
            rows = writer.rows()
            if rows or not previous.exists():
                return writer, rows, None
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
            return writer, writer.rows(), aside
        set_aside(path)
    writer = LedgerWriter(path, above)
    return writer, [], aside
