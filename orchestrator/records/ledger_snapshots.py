"""Snapshots of ledgers in a storage, from which another machine resumes.

A snapshot is named by its ledger's epoch, which each writer raises, and by the output that wrote it. The highest name
is the newest snapshot. A writer that finds a higher one than its own has been replaced, and stops. The snapshot before
the newest is kept, in case the newest is damaged.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.ledger import FencedError, LedgerReader
from orchestrator.records.ledger_file import read_epoch
from orchestrator.records.object_storage import Storage
from orchestrator.records.rows import AnyRow
from supsup_core.errors import CorruptError, SupSupError

log = logging.getLogger("supsup")

UPLOAD_SECONDS = 20.0
"""How long the upload of one snapshot is retried: the next snapshot will do as well."""

CLOSING_SECONDS = 60.0
"""How long a coordinator that ends waits for its last snapshot. The launching process uploads what is left."""

_NAME = re.compile(r"ledger-(\d{8})-([0-9a-f]{8})\.sqlite")


class SnapshotId(NamedTuple):
    """The epoch of a ledger's writer, and the id of the output that it writes in. A higher one is newer."""

    epoch: int
    output_id: str

    @property
    def file_name(self) -> str:
        """The snapshot's file in the storage."""
        return f"ledger-{self.epoch:08}-{self.output_id}.sqlite"


def snapshot_ids(names: Iterable[str]) -> list[SnapshotId]:
    """The snapshots among files of these names, the newest first."""
    found = (_NAME.fullmatch(name) for name in names)
    return sorted((SnapshotId(int(match[1]), match[2]) for match in found if match), reverse=True)


def is_newer(stored: Sequence[SnapshotId], here: SnapshotId) -> bool:
    """Whether the newest of some snapshots was written after a ledger of an output, and in another output.

    here: the ledger's epoch, and the id of the output it is in. A ledger with the epoch of a snapshot of another output
    is a copy of that snapshot: to write to it here would have raised its epoch.
    """
    if not stored:
        return False
    newest = stored[0]
    return newest.epoch > here.epoch or (newest.epoch == here.epoch and newest.output_id != here.output_id)


def rows_or_none(ledger: Path) -> list[AnyRow]:
    """The rows of a ledger; none where they cannot be read."""
    try:
        with LedgerReader(ledger) as reader:
            return reader.rows()
    except SupSupError:
        return []


class Snapshots:
    """The snapshots of one ledger in a storage."""

    def __init__(self, folder: Storage) -> None:
        """folder: the training group's, in the storage."""
        self._folder = folder

    def ids(self) -> list[SnapshotId]:
        """The snapshots there are, the newest first."""
        return snapshot_ids(self._folder.files())

    def put(self, snapshot: SnapshotId, content: bytes) -> None:
        """Store a snapshot. FencedError when a newer one is stored: another writer has taken over."""
        stored = self.ids()
        if stored and stored[0] > snapshot:
            raise FencedError(
                f"{self._folder.url}: another process has taken over this ledger, in the output with id "
                f"{stored[0].output_id}; nothing more is written from here"
            )
        self._folder.write(snapshot.file_name, content)
        for old in [other for other in stored if other < snapshot][1:]:
            self._folder.delete(old.file_name)

    def sound(self) -> Iterator[tuple[bytes, list[AnyRow]]]:
        """The content and the rows of each snapshot that is sound, the newest first."""
        for snapshot in self.ids():
            with tempfile.TemporaryDirectory() as scratch:
                copy = Path(scratch) / snapshot.file_name
                try:
                    copy.write_bytes(self._folder.read(copy.name))
                    with LedgerReader(copy) as reader:
                        rows = reader.verify()
                except FileNotFoundError:
                    continue  # a newer snapshot has replaced it meanwhile
                except CorruptError as error:
                    log.warning("a snapshot is damaged; falling back to the one before it: %s", error)
                    continue
                yield copy.read_bytes(), rows

    def are_ahead_of(self, ledger: Path, output_id: str) -> bool:
        """Whether the newest snapshot was written elsewhere, later, and has rows that the ledger here does not have."""
        if not is_newer(self.ids(), SnapshotId(read_epoch(ledger), output_id)):
            return False
        known = rows_or_none(ledger)
        _, rows = next(self.sound(), (b"", known))
        return known[: len(rows)] != rows


class SnapshotUploader:
    """Uploads a ledger's snapshots to the storage in a thread, one at a time."""

    def __init__(self, snapshots: Snapshots, masks: ArtifactStore) -> None:
        """masks: dropped mask versions are deleted from the storage once a newer snapshot is safe, for until then an
        older snapshot may need them."""
        self._snapshots = snapshots
        self._masks = masks
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._upload: Future[None] | None = None
        self._dropped: list[str] = []

    @property
    def busy(self) -> bool:
        """Whether an upload is in progress. FencedError when another writer has taken over."""
        if self._upload is None:
            return False
        if not self._upload.done():
            return True
        error = self._upload.exception()
        self._upload = None
        if isinstance(error, FencedError):
            raise error
        if error is not None:
            log.warning("a snapshot could not be stored; the next one may: %s", error)
        return False

    def start(self, snapshot: SnapshotId, content: bytes, dropped: Iterable[str]) -> None:
        """Upload a snapshot, then delete the mask versions that were dropped before it."""
        self._dropped += dropped
        self._upload = self._pool.submit(self._store, snapshot, content, list(self._dropped))

    def _store(self, snapshot: SnapshotId, content: bytes, dropped: Sequence[str]) -> None:
        self._snapshots.put(snapshot, content)
        self._masks.forget(dropped)
        del self._dropped[: len(dropped)]

    def wait(self) -> None:
        """Wait for the upload in progress, at most CLOSING_SECONDS."""
        if self._upload is not None:
            futures.wait([self._upload], CLOSING_SECONDS)

    def close(self) -> None:
        """Wait for the upload in progress, and accept no more."""
        self.wait()
        self._pool.shutdown(wait=False, cancel_futures=True)
