"""Commits of an NNs run: first the masks that changed, as versions on disk, then the ledger's rows at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import final

from orchestrator.base import failpoints
from orchestrator.base.keys import content_key
from orchestrator.coordination.group_journal import GroupJournal
from orchestrator.coordination.messages import SavedMasks, SaveJob
from orchestrator.nns.mask_holders import Preference
from orchestrator.nns.mask_versions import Lineages
from orchestrator.records.ledger import Entry
from orchestrator.records.rows import EvaluationDue, RoundsCommitted


@final
class Saving:
    """The first half of a commit: each mask that changed is put on disk by the worker that has it in memory."""

    def __init__(
        self, num_rounds: int, due: Sequence[int], changed: Iterable[int], holders: Mapping[int, int],
        lineages: Lineages,
    ) -> None:  # fmt: skip
        """num_rounds: that have ended; due: evaluation points that the commit completes; changed: masks' numbers;
        holders: the workers that have them in memory, as far as any has."""
        self.due = list(due)
        self.started = time.perf_counter()
        self.num_bytes = 0
        self._lineages = lineages
        self._holders = holders
        self._waiting: dict[str, list[int]] = {}
        by_worker: dict[int | None, list[int]] = {}
        for number in changed:
            by_worker.setdefault(holders.get(number), []).append(number)
        for numbers in by_worker.values():
            content = content_key([lineages.latest(number) for number in numbers], 12)
            self._waiting[f"save-{num_rounds}-{content}"] = numbers

    @property
    def over(self) -> bool:
        """Whether all is on disk."""
        return not self._waiting

    def jobs(self, stored: Collection[str]) -> Iterator[Preference]:
        """The jobs it waits for, each for the worker that has the masks, if any still has them."""
        for key, numbers in self._waiting.items():
            versions = tuple(self._lineages[number].version(stored) for number in numbers)
            holder = self._holders.get(numbers[0])
            yield Preference(SaveJob(key, versions), holder, only=holder is not None)

    def add_saved(self, key: str, product: SavedMasks) -> bool:
        """Add masks that were saved; False when they were not waited for."""
        if self._waiting.pop(key, None) is None:
            return False
        self.num_bytes += product.num_bytes
        return True


@final
class Commits:
    """What is not committed yet, and when to commit it.

    `dirty`: masks that changed since the last commit, in order. `saving`: the commit in progress, if any.
    `is_settling`: a commit is near, so that no worker is to train a mask further than is decided.
    """

    def __init__(self, journal: GroupJournal, lineages: Lineages, every: float, settles: bool) -> None:
        """every: the most seconds between two commits. settles: workers train ahead of the decisions."""
        self.dirty: dict[int, None] = {}
        self.saving: Saving | None = None
        self.is_settling = False
        self._journal = journal
        self._lineages = lineages
        self._every = every
        self._settles = settles
        self._entries: list[Entry] = []
        self._seconds_after = 0.0
        self._last = time.monotonic()

    @property
    def has_entries(self) -> bool:
        """Whether any row waits to be committed."""
        return bool(self._entries)

    def add(self, entries: Iterable[Entry]) -> None:
        """Add rows to the next commit."""
        self._entries += entries

    def is_due(self, round_started: float, is_beyond: Callable[[Collection[int]], bool]) -> bool:
        """Whether another round would be one too many before a commit.

        A mask that a worker has trained further than is decided would have to be trained again to be put on disk. So
        from half the time on, a commit waits for a moment without any such mask (`is_beyond`), and none is trained
        further meanwhile. round_started: when the last round began, by the monotonic clock.
        """
        now = time.monotonic()
        elapsed = now + (now - round_started) - self._last
        if elapsed > self._every:
            return True
        self.is_settling = self._settles and 2 * elapsed > self._every
        return self.is_settling and not is_beyond(self.dirty)

    def begin(self, num_rounds: int, due: Sequence[int], holders: Mapping[int, int]) -> Saving:
        """Begin a commit: the masks that changed are to be put on disk."""
        self.is_settling = True
        self.saving = Saving(num_rounds, due, self.dirty, holders, self._lineages)
        return self.saving

    def write(
        self, num_rounds: int, changed: Mapping[int, str], due: Iterable[EvaluationDue], training_seconds: float
    ) -> None:
        """Commit the rows: all masks are on disk. changed: the keys of the versions written, by mask."""
        assert self.saving is not None
        failpoints.reach("committing", num_rounds)
        self._entries += [Entry(event) for event in due]
        seconds = self._seconds_after + time.perf_counter() - self.saving.started
        event = RoundsCommitted(num_rounds, dict(changed), self.saving.num_bytes, training_seconds, seconds)
        self._entries.append(Entry(event))
        self._journal.commit(self._entries)
        self._entries = []

    def end(self, started: float) -> None:
        """End the commit. started: when its rows were about to be written, by time.perf_counter; the seconds since then
        are told by the next commit's row."""
        self.saving = None
        self.dirty = {}
        self.is_settling = False
        self._last = time.monotonic()
        self._seconds_after = time.perf_counter() - started
        failpoints.reach("committed")
