"""Speculative execution in NNs: idle workers train masks before the stream has reached them.

Segments are decided one after the other, each with the masks that the one before has left, so one stream by itself
keeps one worker busy. But what a mask becomes depends on its number and its segments alone (see `mask_versions`), and
the decisions can be predicted: a task that has a mask keeps it, and a new task gets the next number. What was trained
on a prediction is used where the decision then names the very same version, by its content key. Otherwise it is
discarded, and only idle time is lost.

No decision sees a prediction. Predictions look at the task numbers of the stream, which is simulated; how well idle
workers are used depends on them, and nothing else.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

from orchestrator.coordination.messages import AdvancedMask, AdvanceJob
from orchestrator.nns.mask_versions import Lineage, Lineages
from orchestrator.nns.round import DecidedSegment
from supsup_core.nns.allocator import Allocator, Decision
from supsup_core.nns.streams import Schedule, Segment


@dataclass(frozen=True)
class Prediction:
    """That a round's decision has mask `mask` trained, which is then the version `key`, after `length` segments.

    `since`: the round of its first predicted segment; -1 for a mask that exists.
    """

    round: int
    mask: int
    key: str
    length: int
    since: int


class TrainedAhead(NamedTuple):
    """A mask version that was trained on a prediction, and the worker that holds it (None: it has died)."""

    key: str
    product: AdvancedMask
    worker: int | None


class AheadJob(NamedTuple):
    """A job that trains on a prediction: its mask, and the worker that holds the mask from an earlier prediction."""

    job: AdvanceJob
    mask: int
    holder: int | None


@final
class Lookahead:
    """The predictions for the rounds to come, and the masks that were trained on them."""

    def __init__(
        self, schedule: Schedule, allocator: Allocator, lineages: Lineages, points: Sequence[int], num_workers: int,
        limit: int,
    ) -> None:  # fmt: skip
        """points: the numbers of rounds after which all masks are put on disk as they then are. limit: bytes of trained
        masks that wait to be used. The allocator and the lineages are only read."""
        self._schedule = schedule
        self._allocator = allocator
        self._lineages = lineages
        self._points = sorted(points)
        self._reach = schedule.segments_per_task * (num_workers // len(schedule.sequences) + 1)
        self._limit = limit
        self._masks_of: dict[int, int] = {}
        self._num_decided = 0
        self._reset()

    def _reset(self) -> None:
        """Discard all predictions, to predict anew from what is decided."""
        self._predictions: deque[Prediction] = deque()
        self._trained: dict[str, TrainedAhead] = {}
        self._barred: set[str] = set()
        self._holders: dict[int, int | None] = {}
        self._predicted_masks = dict(self._masks_of)
        self._branches: dict[int, tuple[Lineage, int]] = {}
        self._num_predicted = self._num_decided

    def add_decision(self, segment: Segment, decision: Decision) -> None:
        """Learn a decision as it was taken, in the order of the run."""
        if decision.freed is not None:
            self._masks_of = {task: mask for task, mask in self._masks_of.items() if mask != decision.freed}
        if decision.mask is not None:
            self._masks_of[segment.task] = decision.mask

    def start(self, num_rounds: int) -> None:
        """Predict from here on: so many rounds are decided, and added."""
        self._num_decided = num_rounds
        self._reset()

    def follow_round(self, decided: Sequence[DecidedSegment]) -> list[TrainedAhead]:
        """Learn the next round's decisions; the versions among them that were trained already."""
        right = True
        found = []
        for entry in decided:
            self.add_decision(entry.segment, entry.decision)
            prediction = self._predictions.popleft() if self._predictions else None
            right = right and prediction is not None and prediction.key == entry.key
            if entry.key is not None and entry.key in self._trained:
                found.append(self._trained.pop(entry.key))
        self._num_decided += 1
        if right:
            predicted = {prediction.mask for prediction in self._predictions}
            self._branches = {mask: branch for mask, branch in self._branches.items() if mask in predicted}
            self._holders = {mask: worker for mask, worker in self._holders.items() if mask in predicted}
        else:
            self._reset()
        return found

    def keep(self, key: str, product: AdvancedMask, worker: int | None) -> None:
        """Keep a mask that was trained on a prediction, if the prediction still stands."""
        for prediction in self._predictions:
            if prediction.key == key and key not in self._trained:
                self._trained[key] = TrainedAhead(key, product, worker)
                self._holders[prediction.mask] = worker

    def forget_worker(self, worker: int) -> None:
        """Drop what a worker that died held in memory."""
        self._holders = {mask: holder for mask, holder in self._holders.items() if holder != worker}
        for key, trained in self._trained.items():
            if trained.worker == worker:
                self._trained[key] = trained._replace(worker=None)

    def bar(self, key: str) -> None:
        """Do not try a version again before it is decided: its training has failed."""
        self._barred.add(key)

    def keys(self) -> set[str]:
        """The versions that predictions name."""
        return {prediction.key for prediction in self._predictions}

    def is_beyond(self, masks: Collection[int], in_flight: Collection[str]) -> bool:
        """Whether a worker has trained, or trains, any of these masks further than is decided."""
        return any(
            prediction.mask in masks and (prediction.key in self._trained or prediction.key in in_flight)
            for prediction in self._predictions
        )

    def jobs(
        self, stored: Collection[str], exclude: Collection[str], waiting: Collection[int], num_rounds: int
    ) -> Iterator[AheadJob]:
        """The jobs that could be done now, the earliest first.

        stored: keys of versions on disk; exclude: keys in flight or postponed; waiting: masks that are not to be
        trained further now; num_rounds: rounds that have ended.
        """
        if sum(len(trained.product.mask) for trained in self._trained.values()) > self._limit:
            return
        self._predict()
        skipped = set(waiting)
        for prediction in self._predictions:
            if prediction.key in self._trained or prediction.mask in skipped:
                continue
            skipped.add(prediction.mask)  # one version of a mask after the other
            is_excluded = prediction.key in exclude or prediction.key in self._barred
            if is_excluded or self._is_too_early(prediction, num_rounds):
                continue
            version = self._branches[prediction.mask][0].version(stored, prediction.length)
            yield AheadJob(AdvanceJob(prediction.key, version), prediction.mask, self._holders.get(prediction.mask))

    def _is_too_early(self, prediction: Prediction, num_rounds: int) -> bool:
        """Whether the mask must be put on disk first, as it is without this segment."""
        place = bisect_right(self._points, max(prediction.since, num_rounds))
        return place < len(self._points) and self._points[place] <= prediction.round

    def _predict(self) -> None:
        """Predict as far as workers could get."""
        num_live = len(self._allocator.live)
        last = min(self._num_decided + self._reach, self._schedule.num_rounds)
        while self._num_predicted < last:
            for _, segment in self._schedule.round(self._num_predicted):
                mask = self._predicted_masks.get(segment.task)
                if mask is None:
                    new = [mask for mask in self._branches if mask >= self._allocator.num_allocated]
                    if num_live + len(new) >= self._allocator.capacity:
                        self._num_predicted = self._schedule.num_rounds  # the budget's policy is not predicted
                        return
                    mask = self._allocator.num_allocated + len(new)
                    self._predicted_masks[segment.task] = mask
                self._add_prediction(segment, mask)
            self._num_predicted += 1

    def _add_prediction(self, segment: Segment, mask: int) -> None:
        if mask not in self._branches:
            known = self._lineages[mask]
            since = -1 if known.segments else self._num_predicted
            self._branches[mask] = known.branch(), since
        lineage, since = self._branches[mask]
        key = lineage.extend(segment)
        self._predictions.append(Prediction(self._num_predicted, mask, key, len(lineage.segments), since))
