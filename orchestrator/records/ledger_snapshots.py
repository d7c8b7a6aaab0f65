"""Snapshots of ledgers in a storage, by which another machine goes on.

A snapshot is named by its ledger's epoch, which each writer raises, and by the place it was written at. The highest is
the newest: who finds a higher one than its own has been replaced, and stops. The one before is kept, should the newest
turn out bad.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.ledger import FencedError, LedgerReader, Row, epoch_of
from orchestrator.records.object_storage import Storage
from supsup_core.errors import CorruptError, SupSupError

log = logging.getLogger("supsup")

COPYING_SECONDS = 20.0
"""How long one snapshot is tried for: the next one will do as well."""

CLOSING_SECONDS = 60.0
"""How long a coordinator that ends waits for its last snapshot; who started it sees to what is left."""

Version = tuple[int, str]
"""The epoch of a ledger and the place of its writer; a higher one is newer."""

_NAME = re.compile(r"ledger-(\d{8})-([0-9a-f]{8})\.sqlite")


def is_newer(stored: Sequence[Version], here: Version) -> bool:
    """Whether the newest of some snapshots was written after a ledger of an output was, elsewhere.

    `here`: the ledger's epoch, and the output's own place. A ledger of the same epoch that was written at another place
    is a copy of that one: to write it here would have raised its epoch.
    """
    if not stored:
        return False
    epoch, place = stored[0]
    return epoch > here[0] or (epoch == here[0] and place != here[1])


def rows_of(ledger: Path) -> list[Row]:
    """The rows of a ledger; none where they cannot be read."""
    try:
        with LedgerReader(ledger) as reader:
            return reader.rows()
    except SupSupError:
        return []


class Snapshots:
    """The snapshots of one ledger."""

    def __init__(self, folder: Storage) -> None:
        """folder: the training group's, in the storage."""
        self._folder = folder

    def versions(self) -> list[Version]:
        """Those there are, the newest first."""
        return versions_in(self._folder.files())

    def put(self, version: Version, content: bytes) -> None:
        """Store a snapshot. FencedError when there is one of a newer version: another writer has taken over."""
        there = self.versions()
        if there and there[0] > version:
            raise FencedError(
                f"{self._folder.url}: another process has gone on with this, at place {there[0][1]}; "
                "nothing more is written from here"
            )
        self._folder.write(_file(version), content)
        for old in [other for other in there if other < version][1:]:
            self._folder.delete(_file(old))

    def sound(self) -> Iterator[tuple[bytes, list[Row]]]:
        """The content of each snapshot that is sound, and its rows, the newest first."""
        for version in self.versions():
            with tempfile.TemporaryDirectory() as scratch:
                copy = Path(scratch) / _file(version)
                try:
                    copy.write_bytes(self._folder.read(copy.name))
                    with LedgerReader(copy) as reader:
                        rows = reader.verify()
                except FileNotFoundError:
                    continue  # a newer one has taken its place meanwhile
                except CorruptError as error:
                    log.warning("a snapshot is damaged, and the one before it is taken: %s", error)
                    continue
                yield copy.read_bytes(), rows

    def are_ahead_of(self, ledger: Path, place: str) -> bool:
        """Whether the newest of them was written elsewhere, later, and says what a ledger of the output `place` does
        not."""
        if not is_newer(self.versions(), (epoch_of(ledger), place)):
            return False
        known = rows_of(ledger)
        _, rows = next(self.sound(), (b"", known))
        return known[: len(rows)] != rows


def versions_in(names: Iterable[str]) -> list[Version]:
    """The versions of those names that are of snapshots, the newest first."""
    found = (_NAME.fullmatch(name) for name in names)
    return sorted(((int(match[1]), match[2]) for match in found if match), reverse=True)


def _file(version: Version) -> str:
    return f"ledger-{version[0]:08}-{version[1]}.sqlite"


class Copier:
    """Brings a ledger's snapshots to the storage beside the work, one at a time."""

    def __init__(self, snapshots: Snapshots, masks: ArtifactStore) -> None:
        """masks: those that a snapshot before may still need are forgotten once a newer one is safe."""
        self._snapshots = snapshots
        self._masks = masks
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._under_way: Future[None] | None = None
        self._dropped: list[str] = []

    @property
    def busy(self) -> bool:
        """Whether a snapshot is on its way. FencedError when another writer has taken over."""
        if self._under_way is None:
            return False
        if not self._under_way.done():
            return True
        error = self._under_way.exception()
        self._under_way = None
        if isinstance(error, FencedError):
            raise error
        if error is not None:
            log.warning("a snapshot could not be stored, the next one may: %s", error)
        return False

    def start(self, version: Version, content: bytes, dropped: Iterable[str]) -> None:
        """Store a snapshot; then forget the masks that were dropped before it."""
        self._dropped += dropped
        self._under_way = self._pool.submit(self._store, version, content, list(self._dropped))

    def _store(self, version: Version, content: bytes, dropped: Sequence[str]) -> None:
        self._snapshots.put(version, content)
        self._masks.forget(dropped)
        del self._dropped[: len(dropped)]

    def wait(self) -> None:
        """Wait for what is on its way, but not long."""
        if self._under_way is not None:
            futures.wait([self._under_way], CLOSING_SECONDS)

    def close(self) -> None:
        """Wait for what is on its way, and take no more."""
        self.wait()
        self._pool.shutdown(wait=False, cancel_futures=True)
