"""The versions of an NNs run's masks on disk: which are there, which are needed, and which are to be made again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import final

from orchestrator.coordination.messages import RebuildJob
from orchestrator.nns.mask_versions import Lineages
from orchestrator.records.artifact_store import ArtifactStore


@final
class VersionFiles:
    """Tracks the mask versions on disk from commit to commit.

    `stored`: the keys of the versions on disk. `current`: each live mask's version, as of the last commit. `missing`:
    the keys of the versions to be made again, in order.
    """

    def __init__(self, store: ArtifactStore, lineages: Lineages, live: Iterable[int]) -> None:
        """live: the numbers of the live masks; each was committed as its lineage ends."""
        self._store = store
        self._lineages = lineages
        self.stored = set(store)
        self.current = {number: lineages.latest(number) for number in live}
        self.missing: dict[str, None] = {}
        self._deletable = self.stored - set(self.current.values())

    def add(self, keys: Iterable[str]) -> None:
        """Add versions that a commit has put on disk."""
        self.stored.update(keys)

    def add_evicted(self, keys: Iterable[str]) -> None:
        """Add versions that a worker wrote to free memory. The next commits delete those that they do not need."""
        added = set(keys)
        self.stored |= added
        self._deletable |= added

    def mark_deletable(self, keys: Set[str]) -> None:
        """Mark versions that nothing references any more, so that the next commit deletes them."""
        self._deletable |= keys - set(self.current.values())

    def mark_lost(self, key: str, needed: bool) -> None:
        """Mark a version that is not on disk after all; where it is `needed`, it is made again."""
        self.stored.discard(key)
        if needed:
            self.missing[key] = None

    def rebuild_jobs(self) -> Iterator[RebuildJob]:
        """The jobs that make missing versions again."""
        for key in self.missing:
            yield RebuildJob(f"rebuild-{key}", self._lineages.find(key, self.stored))

    def mark_rebuilt(self, key: str) -> None:
        """Mark a missing version as on disk again."""
        self.missing.pop(key, None)
        self.stored.add(key)

    def advance(self, current: Mapping[int, str], used: Set[str]) -> set[str]:
        """Make these the masks' current versions, as a commit has written them; returns the keys deleted.

        Versions that an earlier commit superseded are deleted unless they are `used`. Those that this commit supersedes
        stay until the next one, in case this one turns out corrupt.
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
