"""Tracks the mask versions of an NNs run on disk: stored versions, deletable ones, and missing ones to be rebuilt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import final

from orchestrator.coordination.messages import RebuildJob
from orchestrator.nns.mask_versions import Lineages
from orchestrator.records.artifact_store import ArtifactStore


@final
class VersionFiles:
    """Tracks the mask versions on disk from commit to commit.

    `stored`: the keys of the versions on disk. `current`: maps each live mask to its version at the last commit.
    `missing`: the keys of the versions to be rebuilt, in order.
    """

    def __init__(self, store: ArtifactStore, lineages: Lineages, live: Iterable[int]) -> None:
        """live: the numbers of the live masks. The last version of each mask's lineage is the committed one."""
        self._store = store
        self._lineages = lineages
        self.stored = set(store)
        self.current = {number: lineages.latest(number) for number in live}
        self.missing: dict[str, None] = {}
        self._deletable = self.stored - set(self.current.values())

    def add(self, keys: Iterable[str]) -> None:
        """Record versions that a commit has written to disk."""
        self.stored.update(keys)

    def add_evicted(self, keys: Iterable[str]) -> None:
        """Record versions that a worker wrote to free memory. Later commits delete the versions that they do not
        need."""
        added = set(keys)
        self.stored |= added
        self._deletable |= added

    def mark_deletable(self, keys: Set[str]) -> None:
        """Mark versions that nothing references any more, so that the next commit deletes them."""
        self._deletable |= keys - set(self.current.values())

    def mark_lost(self, key: str, needed: bool) -> None:
        """Record that a version is not on disk. If `needed`, the version is added to those to be rebuilt."""
        self.stored.discard(key)
        if needed:
            self.missing[key] = None

    def rebuild_jobs(self) -> Iterator[RebuildJob]:
        """Yields the jobs that rebuild missing versions."""
        for key in self.missing:
            yield RebuildJob(f"rebuild-{key}", self._lineages.find(key, self.stored))

    def mark_rebuilt(self, key: str) -> None:
        """Record that a missing version has been rebuilt and is on disk."""
        self.missing.pop(key, None)
        self.stored.add(key)

    def advance(self, current: Mapping[int, str], used: Set[str]) -> set[str]:
        """Make `current`, the versions of a new commit, the masks' current versions. Returns the deleted keys.

        Versions that an earlier commit superseded are deleted unless they are `used`. Versions that this commit
        supersedes are kept until the next commit, in case a version of this commit turns out to be corrupt.
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
