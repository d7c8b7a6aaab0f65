"""The versions of an NNs run's masks on disk: which are there, which are needed, and how a commit has them written."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set

from orchestrator.base.keys import content_key
from orchestrator.coordination.messages import Job, Outcome
from orchestrator.nns.mask_versions import Lineages
from orchestrator.records.artifact_store import ArtifactStore


class StreamVersions:
    """What is on disk and what of it may go, as one commit follows another."""

    def __init__(self, store: ArtifactStore, lineages: Lineages, live: Iterable[int]) -> None:
        """live: the numbers of the masks that there are; each was committed as its lineage ends."""
        self._store = store
        self._lineages = lineages
        self.stored = set(store)
        """Keys of the versions on disk."""
        self.current = {number: lineages[number].keys[-1] for number in live}
        """Each live mask's version, as of the last commit."""
        self.missing: dict[str, None] = {}
        """Keys of the versions that are to be made again, in order."""
        self._superseded = self.stored - set(self.current.values())

    def wrote(self, keys: Collection[str], spare: bool = False) -> None:
        """Note that versions were put on disk. Of what is `spare` the next commits keep what they need."""
        self.stored.update(keys)
        if spare:
            self._superseded.update(keys)

    def spare(self, keys: Set[str]) -> None:
        """Note versions that were needed for themselves alone, and are no more."""
        self._superseded |= keys - set(self.current.values())

    def lose(self, key: str, needed: bool) -> None:
        """Note that a version is not on disk after all; if it is `needed`, it is made again."""
        self.stored.discard(key)
        if needed:
            self.missing[key] = None

    def rebuilds(self) -> Iterator[Job]:
        """The jobs that make again what is missing."""
        for key in self.missing:
            yield {"kind": "save", "key": f"rebuild-{key}", "versions": [self._lineages.find(key, self.stored)]}

    def take_rebuilt(self, outcome: Outcome) -> bool:
        """Take a version that was made again; False for any other outcome."""
        job, _, key = outcome["key"].partition("-")
        if job != "rebuild":
            return False
        self.missing.pop(key, None)
        self.stored.add(key)
        return True

    def move_to(self, current: Mapping[int, str], used: Set[str]) -> set[str]:
        """A commit has made these the masks' versions. Delete what an earlier one superseded, unless it is `used`; what
        this one supersedes stays for one more. Returns the keys deleted."""
        needed = set(current.values())
        superseded = set(self.current.values()) - needed
        gone = self._superseded - needed - superseded - used
        for key in gone:
            self._store.drop(key)
        self.stored -= gone
        self._superseded = (self._superseded - gone) | superseded
        self.current = dict(current)
        return gone


class Saving:
    """The first half of a commit: each mask that changed is put on disk by the worker that has it in memory."""

    def __init__(
        self,
        num_rounds: int,
        due: Sequence[int],
        changed: Iterable[int],
        holders: Mapping[int, int],
        lineages: Lineages,
    ) -> None:
        """num_rounds: that have ended; due: points of evaluation that the commit completes; changed: masks' numbers;
        holders: the workers that have them in memory, as far as any has."""
        self.due = list(due)
        self.started = time.perf_counter()
        self.num_bytes = 0
        """That were written so far."""
        self._lineages = lineages
        self._holders = holders
        self._waiting: dict[str, list[int]] = {}
        by_worker: dict[int | None, list[int]] = {}
        for number in changed:
            by_worker.setdefault(holders.get(number), []).append(number)
        for numbers in by_worker.values():
            wanted = content_key([lineages[number].keys[-1] for number in numbers], 12)
            self._waiting[f"save-{num_rounds}-{wanted}"] = numbers

    @property
    def over(self) -> bool:
        """Whether all is on disk."""
        return not self._waiting

    def jobs(self, stored: Collection[str]) -> Iterator[tuple[Job, int | None]]:
        """What it waits for, each with the worker that is to do it: the one that has the masks, if any still has."""
        for key, numbers in self._waiting.items():
            versions = [self._lineages[number].version(stored) for number in numbers]
            yield {"kind": "save", "key": key, "versions": versions}, self._holders.get(numbers[0])

    def take(self, outcome: Outcome) -> bool:
        """Take masks that were saved; False when they were not waited for."""
        if self._waiting.pop(outcome["key"], None) is None:
            return False
        self.num_bytes += outcome["num_bytes"]
        return True
