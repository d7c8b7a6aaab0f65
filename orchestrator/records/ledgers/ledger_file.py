"""Creates, verifies and copies the SQLite file of a ledger."""

from __future__ import annotations

import contextlib
import gc
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

from orchestrator.records.rows import AnyRow, Row, event_from_json
from supsup_core.errors import CorruptError, SupSupError

SCHEMA = """
CREATE TABLE IF NOT EXISTS writer (epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS rows (
    seq INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS attachments (seq INTEGER PRIMARY KEY, data BLOB NOT NULL, checksum INTEGER NOT NULL);
"""

LOCK_SECONDS = 30.0
"""The number of seconds that SQLite waits for a lock that another process holds."""
_SUFFIXES = ("", "-wal", "-shm")
"""The ends of the names of a ledger's files: the database, and SQLite's side files."""

DAMAGE = (sqlite3.Error, CorruptError, ValueError, TypeError)
"""The exceptions that reading a damaged file can raise: SQLite's own errors, and errors about wrong values."""

_TEMPORARY = (
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
"""SQLite's codes for errors that do not come from the file's content, such as a lock or a full disk."""


def connect_read_only(path: Path, check_same_thread: bool = True) -> sqlite3.Connection:
    """Returns a read-only connection to a ledger. Another process may write to the ledger at the same time."""
    if path.with_name(path.name + "-journal").exists():  # left by a killed process; SQLite rolls the write back
        with contextlib.closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as db:
            db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=LOCK_SECONDS, check_same_thread=check_same_thread)


def check_database(db: sqlite3.Connection) -> None:
    """Raises CorruptError if SQLite's quick_check finds the file damaged."""
    if db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
        raise CorruptError("SQLite's quick_check failed")


def has_tables(db: sqlite3.Connection) -> bool:
    """Returns whether a writer has created all tables."""
    return db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'attachments'").fetchone() is not None


def explain(path: Path, error: Exception) -> SupSupError:
    """Converts an exception from DAMAGE, raised while a ledger was used, to the error that the caller must raise.

    Returns a CorruptError if the file is corrupt. Returns a plain SupSupError if the file cannot be used now, because
    of a full disk, a missing permission or a lock.
    """
    code = getattr(error, "sqlite_errorcode", None)
    is_temporary = code is None or code & 0xFF in _TEMPORARY
    if code is not None and code & 0xFF == sqlite3.SQLITE_READONLY:
        is_temporary = _allows_writes(path)
    if isinstance(error, sqlite3.OperationalError) and is_temporary:
        return _unusable(path, error)
    try:
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass
    except OSError as failed:  # SQLite's check of a database calls pages damaged that cannot be read
        return _unusable(path, failed)
    return CorruptError(f"{path}: the ledger is damaged ({error})")


def _unusable(path: Path, error: Exception) -> SupSupError:
    return SupSupError(f"{path}: the ledger cannot be used ({error}); correct the cause, then run `supsup resume`")


def _allows_writes(path: Path) -> bool:
    """Returns whether a database's header gives known versions of the format for reading and writing.

    SQLite does not write to a database of another version. https://www.sqlite.org/fileformat.html#file_format_version_numbers
    """
    try:
        with path.open("rb") as file:
            return set(file.read(20)[18:]) <= {1, 2}
    except OSError:
        return True


def extend_checksum(checksum: int, seq: int, time_ms: int, kind: bytes, payload: bytes) -> int:
    """Returns the checksum of a row: the CRC-32 of the row's content, continued from the previous row's `checksum`."""
    return zlib.crc32(payload, zlib.crc32(b"%d %d %s " % (seq, time_ms, kind), checksum))


def checksum_at(db: sqlite3.Connection, seq: int) -> int:
    """Returns the checksum of row `seq`, or 0 if there is no such row."""
    found = db.execute("SELECT checksum FROM rows WHERE seq = ?", (seq,)).fetchone()
    return int(found[0]) if found else 0


def last_seq(db: sqlite3.Connection, table: Literal["rows", "attachments"] = "rows") -> int:
    """Returns the number of a ledger's last row, or of its last row that has an attachment; 0 if there is no such
    row."""
    return int(db.execute(f"SELECT coalesce(max(seq), 0) FROM {table}").fetchone()[0]) if has_tables(db) else 0


def last_epoch(db: sqlite3.Connection) -> int:
    """Returns the epoch of a ledger's last writer; 0 if there was none."""
    return int(db.execute("SELECT coalesce(max(epoch), 0) FROM writer").fetchone()[0]) if has_tables(db) else 0


def select_rows(db: sqlite3.Connection, after: int, kinds: Collection[str] | None = None) -> list[AnyRow]:
    """Verifies the rows with seq > `after`, and returns them in order. Raises CorruptError if a row is missing or
    damaged.

    kinds: returns only the rows with events of these kinds, and does not decode other rows; None means all kinds.
    """
    checksum = checksum_at(db, after)
    query = (
        "SELECT seq, time_ms, CAST(kind AS BLOB), CAST(payload AS BLOB), checksum FROM rows WHERE seq > ? ORDER BY seq"
    )
    rows: list[AnyRow] = []
    with collector_paused():
        for expected, (seq, time_ms, kind, payload, claimed) in enumerate(db.execute(query, (after,)), start=after + 1):
            checksum = extend_checksum(checksum, seq, time_ms, kind, payload)
            if seq != expected or checksum != claimed:
                raise CorruptError(f"row {seq} is corrupt: its checksum does not match")
            if kinds is not None and kind.decode() not in kinds:
                continue
            try:
                rows.append(Row(seq, time_ms, event_from_json(kind.decode(), payload)))
            except CorruptError as error:
                raise CorruptError(f"ledger row {seq}: {error}") from error
    return rows


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pauses Python's garbage collector for the `with` block.

    While thousands of rows are built, the collector would scan all objects of the process many times, although none of
    them can be freed.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def copy_database(db: sqlite3.Connection, path: Path, target: Path) -> None:
    """Copies the open ledger at `path` to `target` as one consistent file.

    Raises CorruptError if the copy is not an intact ledger, and SupSupError if the copy cannot be written.
    """
    try:
        target.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(target)) as copy:
            db.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            try:
                check_database(copy)
                select_rows(copy, 0, kinds=())
            except DAMAGE as error:
                raise CorruptError(
                    f"{path}: the ledger is damaged on disk ({error}); `supsup resume` restores it from the last "
                    "snapshot"
                ) from error
    except (sqlite3.Error, OSError) as error:
        raise SupSupError(
            f"{target}: the ledger cannot be copied to this file ({error}); correct the cause, then run `supsup resume`"
        ) from error


def merge_side_files(path: Path) -> None:
    """Moves the rows in a ledger's -wal into the ledger, and deletes the side files -wal and -shm.

    Merging protects the rows of a finished ledger, because SQLite silently ignores the end of a damaged -wal. Does
    nothing if the ledger does not exist or if another process has opened it. Raises sqlite3.Error if the ledger cannot
    be used.
    """
    if not path.exists():
        return
    with contextlib.closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as db:
        try:
            db.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError as error:
            if (error.sqlite_errorcode & 0xFF) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise


def read_copy(path: Path) -> bytes:
    """Returns the bytes of a consistent copy of a ledger, even while another process writes to the ledger.

    Raises CorruptError if the copy is not an intact ledger.
    """
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / path.name
        with contextlib.closing(connect_read_only(path)) as db:
            copy_database(db, path, target)
        return target.read_bytes()


def read_epoch(path: Path) -> int:
    """Returns the epoch of a ledger's last writer, or 0 if the ledger is missing or its epoch cannot be read."""
    return _first(path, "SELECT coalesce(max(epoch), 0) FROM writer")[0]


def num_bytes(path: Path) -> int:
    """Returns the size that a copy of a ledger would have, or 0 if the ledger is missing or cannot be read."""
    return _first(path, "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")[0]


def read_newest(path: Path) -> tuple[int, int]:
    """Returns the number and the time in milliseconds of a ledger's newest row, or (0, 0) if the row cannot be read."""
    seq, time_ms = _first(path, "SELECT seq, time_ms FROM rows ORDER BY seq DESC LIMIT 1")
    return seq, time_ms


def _first(path: Path, query: str) -> tuple[int, int]:
    """Returns the first two values of a query's first row.

    Missing values are 0, and so are the values of an unreadable ledger.
    """
    if not path.exists():
        return 0, 0
    try:
        with contextlib.closing(connect_read_only(path)) as db:
            one, two, *_ = (*map(int, db.execute(query).fetchone()), 0)
            return one, two
    except (sqlite3.Error, TypeError, ValueError):
        return 0, 0


def set_aside(path: Path) -> Path:
    """Renames a corrupt ledger and its SQLite side files (-wal, -shm). Returns the new path of the ledger."""
    aside = _path_aside(path)
    for part, target in _parts(path, aside):
        part.rename(target)
    return aside


def copy_aside(path: Path) -> Path:
    """Copies a damaged ledger and its side files (-wal, -shm) before SQLite changes them. Returns the path of the
    copy."""
    aside = _path_aside(path)
    for part, target in _parts(path, aside):
        shutil.copyfile(part, target)
    return aside


def _path_aside(path: Path) -> Path:
    """Returns an unused path for a corrupt ledger."""
    number = sum(1 for other in path.parent.glob(f"{path.name}.corrupt*") if other.name[-1].isdigit())
    while (aside := path.with_name(f"{path.name}.corrupt{number}")).exists():
        number += 1
    return aside


def _parts(path: Path, aside: Path) -> list[tuple[Path, Path]]:
    """Returns pairs of paths: each existing file of a ledger, and the path of its copy. aside: the path of the ledger's
    copy."""
    parts = [(path.with_name(path.name + suffix), aside.with_name(aside.name + suffix)) for suffix in _SUFFIXES]
    return [(part, target) for part, target in parts if part.exists()]


def snapshot_path(path: Path) -> Path:
    """Returns the path of a ledger's snapshot, which lies in the same folder."""
    return path.with_name("ledger.previous.sqlite")
