"""Look-ahead training in NNs (speculative execution): idle workers train masks for decisions that are not made yet.

Each decision needs the masks that the previous round has trained. Without look-ahead training, one stream therefore
keeps only one worker busy. Two facts make look-ahead training possible. First, a mask's scores depend only on the
mask's number and segments (see `mask_versions`). Second, most decisions can be predicted: a task that has a mask keeps
this mask, and a new task gets the next mask number. A mask version that look-ahead training has produced is kept in
memory. If a later decision needs a version with the content key of a kept version, the coordinator uses the kept
version. After a wrong prediction, the kept versions are discarded, and only idle time is wasted.

Decisions never use predictions. Predictions use the true task numbers of the simulated stream. Therefore the task
numbers affect only how busy the workers are, never the results.
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
    """The prediction that round `round` trains mask `mask` on one more segment.

    `key`: the key of the mask version after this segment. `length`: the number of segments that this version is trained
    on. `since`: for a predicted new mask, the round of the mask's first segment; for a mask that already exists, -1.
    """

    round: int
    mask: int
    key: str
    length: int
    since: int


class TrainedAhead(NamedTuple):
    """A mask version that look-ahead training has produced. `worker`: the worker that trained the version and holds the
    mask in memory; None if this worker died."""

    key: str
    product: AdvancedMask
    worker: int | None


class AheadJob(NamedTuple):
    """A look-ahead job that trains `mask` on its next predicted segment. `holder`: the worker that holds the mask in
    memory after an earlier look-ahead job; None if there is no such worker."""

    job: AdvanceJob
    mask: int
    holder: int | None


@final
class Lookahead:
    """Predicts which masks later segments will train, and keeps the versions that look-ahead training produces."""

    def __init__(
        self, schedule: Schedule, allocator: Allocator, lineages: Lineages, points: Sequence[int], num_workers: int,
        limit: int,
    ) -> None:  # fmt: skip
        """points: the numbers of rounds after which an evaluation point follows. limit: `jobs` yields no further jobs
        while the kept masks take more than this number of bytes. Predictions change neither the decisions of
        `allocator` nor the lineages of decided segments."""
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
        """Discards all predictions and kept versions. Predictions start again from the decisions made so far."""
        self._predictions: deque[Prediction] = deque()
        self._trained: dict[str, TrainedAhead] = {}
        self._barred: set[str] = set()
        self._holders: dict[int, int | None] = {}
        self._predicted_masks = dict(self._masks_of)
        self._branches: dict[int, tuple[Lineage, int]] = {}
        self._num_predicted = self._num_decided

    def add_decision(self, segment: Segment, decision: Decision) -> None:
        """Records a decision. Decisions must be added in the order in which the run made them."""
        if decision.freed is not None:
            self._masks_of = {task: mask for task, mask in self._masks_of.items() if mask != decision.freed}
        if decision.mask is not None:
            self._masks_of[segment.task] = decision.mask

    def start(self, num_rounds: int) -> None:
        """Starts the predictions after the first `num_rounds` rounds. Call `add_decision` for these rounds first."""
        self._num_decided = num_rounds
        self._reset()

    def follow_round(self, decided: Sequence[DecidedSegment]) -> list[TrainedAhead]:
        """Records the decisions of the next round. Discards all predictions if a prediction for this round was wrong.

        Returns the versions that these decisions need and that are already trained.
        """
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
        """Keeps a version that `worker` trained in a look-ahead job, unless its prediction has been discarded."""
        for prediction in self._predictions:
            if prediction.key == key and key not in self._trained:
                self._trained[key] = TrainedAhead(key, product, worker)
                self._holders[prediction.mask] = worker

    def forget_worker(self, worker: int) -> None:
        """Records that a worker died and no longer holds any mask in memory."""
        self._holders = {mask: holder for mask, holder in self._holders.items() if holder != worker}
        for key, trained in self._trained.items():
            if trained.worker == worker:
                self._trained[key] = trained._replace(worker=None)

    def bar(self, key: str) -> None:
        """Excludes a version, whose training has failed, from look-ahead training until predictions are discarded."""
        self._barred.add(key)

    def keys(self) -> set[str]:
        """Returns the keys of all predicted versions."""
        return {prediction.key for prediction in self._predictions}

    def is_beyond(self, masks: Collection[int], in_flight: Collection[str]) -> bool:
        """Returns whether a worker has trained, or is training, any of `masks` beyond the mask's last decided segment.

        in_flight: the keys of the jobs that workers are doing.
        """
        return any(
            prediction.mask in masks and (prediction.key in self._trained or prediction.key in in_flight)
            for prediction in self._predictions
        )

    def jobs(
        self, stored: Collection[str], exclude: Collection[str], waiting: Collection[int], num_rounds: int
    ) -> Iterator[AheadJob]:
        """Yields the look-ahead jobs that can start now, in the order of their rounds.

        stored: the keys of the versions on disk. exclude: the keys of jobs in flight or postponed. waiting: the numbers
        of masks that get no look-ahead job now. num_rounds: the number of rounds that have ended.
        """
        if sum(len(trained.product.mask) for trained in self._trained.values()) > self._limit:
            return
        self._predict()
        skipped = set(waiting)
        for prediction in self._predictions:
            if prediction.key in self._trained or prediction.mask in skipped:
                continue
            skipped.add(prediction.mask)  # the versions of one mask are trained one after another
            is_excluded = prediction.key in exclude or prediction.key in self._barred
            if is_excluded or self._is_too_early(prediction, num_rounds):
                continue
            version = self._branches[prediction.mask][0].version(stored, prediction.length)
            yield AheadJob(AdvanceJob(prediction.key, version), prediction.mask, self._holders.get(prediction.mask))

    def _is_too_early(self, prediction: Prediction, num_rounds: int) -> bool:
        """Returns whether an evaluation point that includes the mask comes before the predicted segment.

        For the evaluation point, the mask must be written to disk before the mask is trained on the predicted segment.
        """
        place = bisect_right(self._points, max(prediction.since, num_rounds))
        return place < len(self._points) and self._points[place] <= prediction.round

    def _predict(self) -> None:
        """Predicts the `_reach` rounds after the last decided round, or fewer if a new task exceeds the budget."""
        num_live = len(self._allocator.live)
        last = min(self._num_decided + self._reach, self._schedule.num_rounds)
        while self._num_predicted < last:
            for _, segment in self._schedule.round(self._num_predicted):
                mask = self._predicted_masks.get(segment.task)
                if mask is None:
                    new = [mask for mask in self._branches if mask >= self._allocator.num_allocated]
                    if num_live + len(new) >= self._allocator.capacity:
                        # budget.on_exhausted applies from here on, and predictions do not imitate this policy
                        self._num_predicted = self._schedule.num_rounds
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
