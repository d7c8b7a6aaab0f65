"""Commits of an NNs run. Workers write each changed mask to disk as a version; then the ledger's rows are committed."""

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
    """The first half of a commit. Each changed mask is written to disk by the worker that holds it in memory."""

    def __init__(
        self, num_rounds: int, due: Sequence[int], changed: Iterable[int], holders: Mapping[int, int],
        lineages: Lineages,
    ) -> None:  # fmt: skip
        """num_rounds: the number of rounds that have ended. due: the evaluation points that the commit completes.
        changed: the numbers of the changed masks. holders: maps a mask to the worker that holds it in memory; a mask
        that no worker holds is absent."""
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
        """Yields the save jobs that are not done yet. If a worker holds a job's masks, only that worker may do the job.

        stored: the keys of the mask versions on disk.
        """
        for key, numbers in self._waiting.items():
            versions = tuple(self._lineages[number].version(stored) for number in numbers)
            holder = self._holders.get(numbers[0])
            yield Preference(SaveJob(key, versions), holder, only=holder is not None)

    def add_saved(self, key: str, product: SavedMasks) -> bool:
        """Record that the save job `key` is done. Returns False if the commit does not wait for this job."""
        if self._waiting.pop(key, None) is None:
            return False
        self.num_bytes += product.num_bytes
        return True


@final
class Commits:
    """Collects the ledger rows and changed masks of the next commit, and decides when to commit them.

    `dirty`: the masks that changed since the last commit, in order. `saving`: the commit in progress, or None.
    `is_settling`: True shortly before a commit. Workers then do not train changed masks ahead of the decisions.
    """

    def __init__(self, journal: GroupJournal, lineages: Lineages, every: float, settles: bool) -> None:
        """every: the maximum number of seconds between two commits. settles: whether workers train masks ahead of the
        decisions, so that a commit should wait for a moment when no changed mask is ahead."""
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
        """Whether any row is waiting to be committed."""
        return bool(self._entries)

    def add(self, entries: Iterable[Entry]) -> None:
        """Add rows to the next commit."""
        self._entries += entries

    def is_due(self, round_started: float, is_beyond: Callable[[Collection[int]], bool]) -> bool:
        """Returns whether to commit now, because another round would probably end after the commit interval.

        A worker may have trained a changed mask ahead of the decisions. Such a mask would have to be retrained to be
        written as it was decided. So with `settles`, no changed mask is trained ahead any more once half the interval
        has passed, and a commit is due as soon as no changed mask is ahead.

        round_started: when the last round began, in seconds of the monotonic clock. is_beyond: returns whether a
        worker has trained, or trains, any of the given masks ahead of the decisions.
        """
        now = time.monotonic()
        elapsed = now + (now - round_started) - self._last
        if elapsed > self._every:
            return True
        self.is_settling = self._settles and 2 * elapsed > self._every
        return self.is_settling and not is_beyond(self.dirty)

    def begin(self, num_rounds: int, due: Sequence[int], holders: Mapping[int, int]) -> Saving:
        """Begin a commit. Returns the `Saving` that writes the changed masks to disk.

        num_rounds, due and holders are the arguments of `Saving`.
        """
        self.is_settling = True
        self.saving = Saving(num_rounds, due, self.dirty, holders, self._lineages)
        return self.saving

    def write(
        self, num_rounds: int, changed: Mapping[int, str], due: Iterable[EvaluationDue], training_seconds: float
    ) -> None:
        """Commit the rows to the ledger, once all changed masks are on disk.

        changed: maps each changed mask to the key of the version written. due: the events of the evaluation points
        that the commit completes. training_seconds: the time spent on training since the last commit.
        """
        assert self.saving is not None
        failpoints.reach("committing", num_rounds)
        self._entries += [Entry(event) for event in due]
        seconds = self._seconds_after + time.perf_counter() - self.saving.started
        event = RoundsCommitted(num_rounds, dict(changed), self.saving.num_bytes, training_seconds, seconds)
        self._entries.append(Entry(event))
        self._journal.commit(self._entries)
        self._entries = []

    def end(self, started: float) -> None:
        """End the commit. started: the time.perf_counter value just before the rows were written. The next commit's row
        reports the seconds since then."""
        self.saving = None
        self.dirty = {}
        self.is_settling = False
        self._last = time.monotonic()
        self._seconds_after = time.perf_counter() - started
        failpoints.reach("committed")
