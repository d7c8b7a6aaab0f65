"""NNs: masks that idle workers train before the stream has come to them.

Segments are decided one after the other, each with the masks that the one before has left; so a stream by itself would
keep one worker busy. But what a mask becomes depends on its number and its segments alone (see `lineage`), and what
will be decided can be guessed: a task that has a mask goes on with it, and a new one gets the next number. What was
trained on a guess is taken where the decision then names the very same version, by its content key; else it is
forgotten, and idle time is all that was lost.

No decision sees a guess. The guesses look at the task numbers of the stream, which is simulated: on them it depends how
well idle workers are used, and nothing else.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.coordination.messages import Job, Outcome
from orchestrator.nns.mask_versions import Lineage, Lineages
from orchestrator.nns.round import Step
from supsup_core.nns.allocator import Allocator, Decision
from supsup_core.nns.streams import Schedule, Segment


@dataclass(frozen=True)
class Guess:
    """That a round's decision has mask `mask` trained, which is then the version `key`, after `length` segments.
    `since`: the round of its first segment, -1 for a mask that there is."""

    round: int
    mask: int
    key: str
    length: int
    since: int


class Ahead:
    """The guesses for the rounds to come, and the masks that were trained on them."""

    def __init__(
        self, schedule: Schedule, allocator: Allocator, lineages: Lineages, points: Sequence[int], num_workers: int,
        limit: int,
    ) -> None:  # fmt: skip
        """points: the numbers of rounds after which all masks are put on disk as they then are; limit: bytes of trained
        masks that wait to be taken. The allocator and the lineages are read alone."""
        self._schedule = schedule
        self._allocator = allocator
        self._lineages = lineages
        self._points = sorted(points)
        self._reach = schedule.segments_per_task * (num_workers // len(schedule.sequences) + 1)
        self._limit = limit
        self._masks_of: dict[int, int] = {}
        self._num_decided = 0
        self._forget()

    def _forget(self) -> None:
        """Guess anew from what is decided."""
        self._guesses: deque[Guess] = deque()
        self._trained: dict[str, tuple[Outcome, int | None]] = {}
        self._barred: set[str] = set()
        self._holders: dict[int, int | None] = {}
        self._guessed_masks = dict(self._masks_of)
        self._branches: dict[int, tuple[Lineage, int]] = {}
        self._num_guessed = self._num_decided

    def note(self, segment: Segment, decision: Decision) -> None:
        """Take up a decision as it was taken, in the order of the run."""
        if decision.freed is not None:
            self._masks_of = {task: mask for task, mask in self._masks_of.items() if mask != decision.freed}
        if decision.mask is not None:
            self._masks_of[segment.task] = decision.mask

    def start(self, num_rounds: int) -> None:
        """Guess from here on: so many rounds are decided, and noted."""
        self._num_decided = num_rounds
        self._forget()

    def follow(self, steps: Sequence[Step]) -> list[tuple[Outcome, int | None]]:
        """Take up the next round's decisions; what was trained for them already, each with its worker."""
        right = True
        found = []
        for step in steps:
            self.note(step.segment, step.decision)
            guess = self._guesses.popleft() if self._guesses else None
            right = right and guess is not None and guess.key == step.key
            if step.key in self._trained:
                found.append(self._trained.pop(step.key))
        self._num_decided += 1
        if right:
            guessed = {guess.mask for guess in self._guesses}
            self._branches = {mask: branch for mask, branch in self._branches.items() if mask in guessed}
            self._holders = {mask: worker for mask, worker in self._holders.items() if mask in guessed}
        else:
            self._forget()
        return found

    def keep(self, outcome: Outcome, worker: int | None) -> None:
        """Keep a mask that was trained on a guess, if that is still one."""
        key = outcome["key"]
        for guess in self._guesses:
            if guess.key == key and key not in self._trained:
                self._trained[key] = (outcome, worker)
                self._holders[guess.mask] = worker

    def lose(self, worker: int) -> None:
        """Note that a worker has died, and the masks that it held with it."""
        self._holders = {mask: holder for mask, holder in self._holders.items() if holder != worker}
        for key, (outcome, holder) in self._trained.items():
            self._trained[key] = outcome, None if holder == worker else holder

    def bar(self, key: str) -> None:
        """Try a version no more before it is decided: its training has failed."""
        self._barred.add(key)

    def keys(self) -> set[str]:
        """The versions that guesses name."""
        return {guess.key for guess in self._guesses}

    def is_beyond(self, masks: Collection[int], in_flight: Collection[str]) -> bool:
        """Whether a worker has gone on with any of these masks further than is decided."""
        return any(g.mask in masks and (g.key in self._trained or g.key in in_flight) for g in self._guesses)

    def jobs(
        self, stored: Collection[str], taken: Collection[str], waiting: Collection[int], num_rounds: int
    ) -> Iterator[tuple[Job, int, int | None]]:
        """What could be trained now, the earliest first: each job with its mask, and the worker that holds it from a
        guess before (None: no guess before).

        stored: keys of versions on disk; taken: keys in flight or set back; waiting: masks that are not to be gone on
        with now; num_rounds: rounds that have ended.
        """
        if sum(len(outcome["mask"]) for outcome, _ in self._trained.values()) > self._limit:
            return
        self._look()
        skipped = set(waiting)
        for guess in self._guesses:
            if guess.key in self._trained or guess.mask in skipped:
                continue
            skipped.add(guess.mask)  # one version of a mask after the other
            if guess.key in taken or guess.key in self._barred or self._is_too_early(guess, num_rounds):
                continue
            version = self._branches[guess.mask][0].version(stored, guess.length)
            job: dict[str, Any] = {"kind": "advance", "key": guess.key, "version": version}
            yield job, guess.mask, self._holders.get(guess.mask)

    def _is_too_early(self, guess: Guess, num_rounds: int) -> bool:
        """Whether the mask is to be put on disk before, as it is without this segment."""
        place = bisect_right(self._points, max(guess.since, num_rounds))
        return place < len(self._points) and self._points[place] <= guess.round

    def _look(self) -> None:
        """Guess as far as workers could get."""
        num_live = len(self._allocator.live)
        last = min(self._num_decided + self._reach, self._schedule.num_rounds)
        while self._num_guessed < last:
            for _, segment in self._schedule.round(self._num_guessed):
                mask = self._guessed_masks.get(segment.task)
                if mask is None:
                    new = [mask for mask in self._branches if mask >= self._allocator.num_allocated]
                    if num_live + len(new) >= self._allocator.capacity:
                        self._num_guessed = self._schedule.num_rounds  # what the budget's policy does is not guessed
                        return
                    mask = self._allocator.num_allocated + len(new)
                    self._guessed_masks[segment.task] = mask
                self._guess(segment, mask)
            self._num_guessed += 1

    def _guess(self, segment: Segment, mask: int) -> None:
        if mask not in self._branches:
            known = self._lineages[mask]
            since = -1 if known.segments else self._num_guessed
            self._branches[mask] = Lineage(mask, list(known.keys), list(known.segments)), since
        lineage, since = self._branches[mask]
        key = lineage.extend(segment)
        self._guesses.append(Guess(self._num_guessed, mask, key, len(lineage.segments), since))
