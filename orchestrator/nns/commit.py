"""Commits of an NNs run. Workers first write the changed masks to disk; then the coordinator writes the ledger rows."""

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
from orchestrator.records.ledgers.ledger import Entry
from orchestrator.records.machine_kind import joined
from orchestrator.records.rows import EvaluationDue, RoundsCommitted


@final
class Saving:
    """The first half of a commit, in which workers write the changed masks to disk.

    `due`: the evaluation points that become due with the commit. `started`: when the commit began, as a value of
    time.perf_counter. `num_bytes`: the bytes that workers have written for the commit so far.
    """

    def __init__(
        self, num_rounds: int, due: Sequence[int], changed: Iterable[int], holders: Mapping[int, int],
        lineages: Lineages,
    ) -> None:  # fmt: skip
        """num_rounds: the number of rounds that have ended. due: the evaluation points that become due with the commit.
        changed: the numbers of the changed masks. holders: maps each mask that a worker holds in memory to this worker.
        The caller may change `holders` later, and `jobs` then uses the changed mapping."""
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
        """Whether all changed masks are on disk."""
        return not self._waiting

    def jobs(self, stored: Collection[str]) -> Iterator[Preference]:
        """Yields the save jobs that are not done yet. If a worker holds a job's masks, only this worker may do the job.

        stored: the keys of the mask versions on disk.
        """
        for key, numbers in self._waiting.items():
            versions = tuple(self._lineages[number].version(stored) for number in numbers)
            holder = self._holders.get(numbers[0])
            yield Preference(SaveJob(key, versions), holder, only=holder is not None)

    def add_saved(self, key: str, product: SavedMasks) -> bool:
        """Records that the save job `key` is done. Returns False if the commit does not wait for this job."""
        if self._waiting.pop(key, None) is None:
            return False
        self.num_bytes += product.num_bytes
        return True


@final
class Commits:
    """Collects the ledger rows and changed masks of the next commit, and decides when to commit them.

    `dirty`: the numbers of the masks that changed since the last commit, in order. `saving`: the commit in progress, or
    None. `is_settling`: whether a commit is in progress or expected soon. While `is_settling` is True, look-ahead
    training leaves out the masks in `dirty`.
    """

    def __init__(self, journal: GroupJournal, lineages: Lineages, every: float, settles: bool) -> None:
        """every: the longest time between two commits, in seconds. settles: whether look-ahead training of changed
        masks stops some time before a commit (see `is_due`)."""
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
        """Whether any row is waiting for the next commit."""
        return bool(self._entries)

    def add(self, entries: Iterable[Entry]) -> None:
        """Adds rows to the next commit."""
        self._entries += entries

    def is_due(self, round_started: float, is_beyond: Callable[[Collection[int]], bool]) -> bool:
        """Returns whether to commit now, for example because the next round would end after the interval `every`.

        Look-ahead training may have trained a changed mask beyond its last decided segment. To commit a mask that is
        trained too far, a worker must retrain the mask from an earlier version. With `settles`, the look-ahead training
        of changed masks therefore stops after half of the interval. After half of the interval, a commit is due as soon
        as no changed mask is beyond its last decided segment.

        round_started: when the round that has just ended began, in seconds of the monotonic clock. is_beyond: a
        function that returns whether a worker has trained, or is training, any of the given masks beyond its last
        decided segment.
        """
        now = time.monotonic()
        elapsed = now + (now - round_started) - self._last
        if elapsed > self._every:
            return True
        self.is_settling = self._settles and 2 * elapsed > self._every
        return self.is_settling and not is_beyond(self.dirty)

    def begin(self, num_rounds: int, due: Sequence[int], holders: Mapping[int, int]) -> Saving:
        """Begins a commit. Returns the `Saving` with the jobs that write the changed masks to disk.

        num_rounds, due, holders: see `Saving`.
        """
        self.is_settling = True
        self.saving = Saving(num_rounds, due, self.dirty, holders, self._lineages)
        return self.saving

    def write(
        self, num_rounds: int, changed: Mapping[int, str], due: Iterable[EvaluationDue], training_seconds: float
    ) -> None:
        """Writes all waiting rows to the ledger in one transaction. Call this method when `saving` is over.

        changed: maps each changed mask to the key of the version on disk. due: the events of the evaluation points
        that become due with the commit. training_seconds: the training time since the last commit.
        """
        assert self.saving is not None
        failpoints.reach("committing", num_rounds)
        self._entries += [Entry(event) for event in due]
        seconds = self._seconds_after + time.perf_counter() - self.saving.started
        machines = joined(self._journal.machines)
        event = RoundsCommitted(num_rounds, dict(changed), self.saving.num_bytes, training_seconds, seconds, machines)
        self._entries.append(Entry(event))
        self._journal.commit(self._entries)
        self._entries = []
        self._journal.machines.clear()

    def end(self, started: float) -> None:
        """Ends the commit. started: the value of time.perf_counter just before the call of `write`. The time from
        `started` to now is added to the `seconds` of the next commit, because this commit's row is already written."""
        self.saving = None
        self.dirty = {}
        self.is_settling = False
        self._last = time.monotonic()
        self._seconds_after = time.perf_counter() - started
        failpoints.reach("committed")
