"""Tracks which mask versions of an NNs run are on disk, which may be deleted, and which must be rebuilt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import final

from orchestrator.coordination.messages import RebuildJob
from orchestrator.nns.mask_versions import Lineages
from orchestrator.records.artifact_store import ArtifactStore


@final
class VersionFiles:
    """Tracks the mask versions on disk from commit to commit.

    `stored`: the keys of the versions on disk. `current`: maps each mask in use to the key of its version at the last
    commit. `missing`: the keys of the versions that must be rebuilt, in order.
    """

    def __init__(self, store: ArtifactStore, lineages: Lineages, live: Iterable[int]) -> None:
        """live: the numbers of the masks in use. `lineages` must contain exactly the segments that are committed."""
        self._store = store
        self._lineages = lineages
        self.stored = set(store)
        self.current = {number: lineages.latest(number) for number in live}
        self.missing: dict[str, None] = {}
        self._deletable = self.stored - set(self.current.values())

    def add(self, keys: Iterable[str]) -> None:
        """Records versions that a commit has written to disk. keys: the keys of these versions."""
        self.stored.update(keys)

    def add_evicted(self, keys: Iterable[str]) -> None:
        """Records versions that a worker wrote to disk only to free memory. The next commit deletes each of these
        versions that nothing references."""
        added = set(keys)
        self.stored |= added
        self._deletable |= added

    def mark_deletable(self, keys: Set[str]) -> None:
        """Marks versions, except the current ones, so that the next commit may delete them."""
        self._deletable |= keys - set(self.current.values())

    def mark_lost(self, key: str, needed: bool) -> None:
        """Records that a version is not on disk. needed: whether the version must be rebuilt."""
        self.stored.discard(key)
        if needed:
            self.missing[key] = None

    def rebuild_jobs(self) -> Iterator[RebuildJob]:
        """Yields the jobs that rebuild missing versions."""
        for key in self.missing:
            yield RebuildJob(f"rebuild-{key}", self._lineages.find(key, self.stored))

    def mark_rebuilt(self, key: str) -> None:
        """Records that a missing version has been rebuilt and is on disk."""
        self.missing.pop(key, None)
        self.stored.add(key)

    def advance(self, current: Mapping[int, str], used: Set[str]) -> set[str]:
        """Makes the versions of a new commit the current versions. Returns the keys of the deleted versions.

        current: maps each mask in use to the key of its version in the new commit. used: the keys of further versions
        that must be kept. Deletes the deletable versions that are in neither `current` nor `used`. A version that the
        new commit supersedes becomes deletable only at the next commit. A worker can therefore rebuild a corrupt
        current version from the superseded version.
        """
        needed = set(current.values())
        superseded = set(self.current.values()) - needed
        deleted = self._deletable - needed - superseded - used
        for key in deleted:
            self._store.drop(key)
        self.stored -= deleted
        self._deletable = (self._deletable - deleted) | superseded
        self.current = dict(current)
        return deleted
