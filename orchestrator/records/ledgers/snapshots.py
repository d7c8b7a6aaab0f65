"""Stores snapshots of ledgers in a storage, so that another machine can resume a sweep.

A snapshot's id, which is part of its file name, consists of the ledger's epoch and the id of the writer's output. Each
new writer increases the epoch, so the snapshot with the highest id is the newest. The id is a fencing token: a writer
stops if the storage holds a snapshot with a higher id than its own. The second-newest snapshot is kept too, as a
fallback if the newest is damaged.
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
from orchestrator.records.ledgers.ledger import FencedError, LedgerReader
from orchestrator.records.ledgers.ledger_file import num_bytes, read_epoch
from orchestrator.records.object_storage import Storage
from orchestrator.records.rows import AnyRow
from supsup_core.errors import CorruptError, SupSupError

log = logging.getLogger("supsup")

UPLOAD_SECONDS = 20.0
"""The upload of a snapshot is retried for this many seconds. The time is short, because a newer snapshot follows."""

CLOSING_SECONDS = 60.0
"""A closing coordinator waits at most this many seconds for its upload. The driver uploads the ledger again when the
sweep ends."""

_NAME = re.compile(r"ledger-(\d{8})-([0-9a-f]{8})\.sqlite")


class SnapshotId(NamedTuple):
    """Identifies a snapshot by its writer: the writer's epoch, and the id of the writer's output.

    A snapshot with a higher id is newer.
    """

    epoch: int
    output_id: str

    @property
    def file_name(self) -> str:
        """The name of the snapshot's file in the storage."""
        return f"ledger-{self.epoch:08}-{self.output_id}.sqlite"


def snapshot_ids(names: Iterable[str]) -> list[SnapshotId]:
    """Returns the ids of the snapshots with these file names, the newest first. Ignores other file names."""
    found = (_NAME.fullmatch(name) for name in names)
    return sorted((SnapshotId(int(match[1]), match[2]) for match in found if match), reverse=True)


def is_newer(stored: Sequence[SnapshotId], here: SnapshotId) -> bool:
    """Returns whether the newest stored snapshot is newer than a local ledger, by epoch and output id.

    stored: ids of snapshots, the newest first. here: the local ledger's epoch and output id. If the epochs are equal
    but the output ids differ, the snapshot counts as newer. With equal epochs, the local ledger is an unchanged copy
    from the other output, because opening a ledger for writing increases its epoch.
    """
    if not stored:
        return False
    newest = stored[0]
    return newest.epoch > here.epoch or (newest.epoch == here.epoch and newest.output_id != here.output_id)


def rows_or_none(ledger: Path) -> list[AnyRow]:
    """Returns the rows of a ledger, or an empty list if they cannot be read."""
    try:
        with LedgerReader(ledger) as reader:
            return reader.rows()
    except SupSupError:
        return []


class Snapshots:
    """Stores, lists and reads the snapshots of one ledger in a storage."""

    def __init__(self, folder: Storage) -> None:
        """folder: the training group's folder in the storage."""
        self._folder = folder

    def ids(self) -> list[SnapshotId]:
        """Returns the ids of all stored snapshots, the newest first."""
        return snapshot_ids(self._folder.files())

    def put(self, snapshot: SnapshotId, content: bytes) -> None:
        """Stores a snapshot. Of the older snapshots, keeps only the newest.

        Raises FencedError if the storage holds a newer snapshot, which means that another writer has taken over.
        """
        stored = self.ids()
        if stored and stored[0] > snapshot:
            raise FencedError(
                f"{self._folder.url}: another process has taken over this ledger, in the output with id "
                f"{stored[0].output_id}; this process writes nothing more to the ledger"
            )
        self._folder.write(snapshot.file_name, content)
        for old in [other for other in stored if other < snapshot][1:]:
            self._folder.delete(old.file_name)

    def sound(self) -> Iterator[tuple[bytes, list[AnyRow]]]:
        """Yields the content and the rows of each intact snapshot, the newest first.

        Logs a warning for each damaged snapshot, and one more warning if all snapshots are damaged.
        """
        num_intact = num_damaged = 0
        for snapshot in self.ids():
            with tempfile.TemporaryDirectory() as scratch:
                copy = Path(scratch) / snapshot.file_name
                try:
                    copy.write_bytes(self._folder.read(copy.name))
                    with LedgerReader(copy) as reader:
                        rows = reader.verify()
                except FileNotFoundError:
                    continue  # deleted meanwhile, because newer snapshots were stored
                except CorruptError as error:
                    log.warning("a snapshot is damaged (%s); trying the previous snapshot", error)
                    num_damaged += 1
                    continue
                num_intact += 1
                yield copy.read_bytes(), rows

        if num_damaged and not num_intact:
            log.warning(
                "%s: no snapshot of this ledger is intact; trained tasks are taken from the storage, "
                "and everything else is computed again",
                self._folder.url,
            )

    def are_ahead_of(self, ledger: Path, output_id: str) -> bool:
        """Returns whether the storage holds a snapshot with rows that the local ledger does not have.

        Downloads a snapshot only in three cases: the local ledger is damaged, the snapshot is newer, or the ledger's
        own snapshot is larger than the ledger. If the ledger is smaller than its own snapshot, the ledger has lost
        rows.
        """
        stored, here = self._folder.files(), SnapshotId(read_epoch(ledger), output_id)
        ids, known = snapshot_ids(stored), rows_or_none(ledger)
        is_longer = ids[:1] == [here] and stored[here.file_name].num_bytes > num_bytes(ledger)
        if known and not is_longer and not is_newer(ids, here):
            return False
        _, rows = next(self.sound(), (b"", known))
        return known[: len(rows)] != rows


class SnapshotUploader:
    """Uploads a ledger's snapshots to the storage in a background thread, one at a time."""

    def __init__(self, snapshots: Snapshots, masks: ArtifactStore) -> None:
        """masks: the store of the group's mask versions.

        Mask versions that were deleted from the output are deleted from the storage only after the next snapshot is
        stored, because older snapshots may refer to them.
        """
        self._snapshots = snapshots
        self._masks = masks
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._upload: Future[None] | None = None
        self._dropped: list[str] = []

    @property
    def busy(self) -> bool:
        """Whether an upload is in progress. Raises FencedError if the last upload failed because of a newer writer."""
        if self._upload is None:
            return False
        if not self._upload.done():
            return True
        error = self._upload.exception()
        self._upload = None
        if isinstance(error, FencedError):
            raise error
        if error is not None:
            log.warning(
                "a snapshot of a ledger could not be stored in the storage (%s); the next snapshot will be stored at "
                "its usual time",
                error,
            )
        return False

    def start(self, snapshot: SnapshotId, content: bytes, dropped: Iterable[str]) -> None:
        """Starts to upload a snapshot. After the upload, deletes mask versions from the storage.

        dropped: the keys of the mask versions to delete.
        """
        self._dropped += dropped
        self._upload = self._pool.submit(self._store, snapshot, content, list(self._dropped))

    def _store(self, snapshot: SnapshotId, content: bytes, dropped: Sequence[str]) -> None:
        self._snapshots.put(snapshot, content)
        self._masks.forget(dropped)
        del self._dropped[: len(dropped)]

    def wait(self) -> None:
        """Waits for the upload in progress, but at most CLOSING_SECONDS."""
        if self._upload is not None:
            futures.wait([self._upload], CLOSING_SECONDS)

    def close(self) -> None:
        """Waits for the upload in progress (see `wait`) and stops the background thread."""
        self.wait()
        self._pool.shutdown(wait=False, cancel_futures=True)
