"""Computes the allocation metrics of an NNs run from the true task identities, which the learner never sees."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import NamedTuple, final

from orchestrator.nns.round import Round
from orchestrator.records.rows import Row, SegmentDecided, TasksMet
from supsup_core.evaluation.metrics import AllocationTally


class _Recent(NamedTuple):
    margin: float
    latency: float
    seconds: float


@final
class AllocationRecord:
    """Tallies all decisions of a run, and keeps the margins and times of its last `segments_per_task` decisions.

    `training_seconds`: the training time since the last commit.
    """

    def __init__(self, segments_per_task: int) -> None:
        self.training_seconds = 0.0
        self._tally = AllocationTally()
        self._recent: deque[_Recent] = deque(maxlen=segments_per_task)

    @property
    def owners(self) -> Mapping[int, int]:
        """Maps each mask in use to the task that the mask was allocated for."""
        return self._tally.owners

    def replay(self, decisions: Iterable[Row[SegmentDecided]]) -> None:
        """Adds the decisions that the ledger holds, in order."""
        for row in decisions:
            event = row.event
            self._tally.add(event.task, event.mask, event.freed)
            self._recent.append(_Recent(event.margin, event.latency, event.seconds))

    def add_round(self, ended: Round) -> None:
        """Adds the decisions and training times of a round that has ended."""
        for entry in ended.decided:
            self._tally.add(entry.segment.task, entry.decision.mask, entry.decision.freed)
            self._recent.append(_Recent(entry.decision.margin, ended.latency, entry.seconds))
            self.training_seconds += entry.seconds

    def tasks_met(self, n: int) -> TasksMet:
        """Returns the ledger event with the allocation metrics after the data of n tasks.

        Three values cover only the last `segments_per_task` decisions: the mean margin, the mean latency and the sum of
        the training seconds.
        """
        margins, latencies, seconds = zip(*self._recent, strict=True)
        metrics = {**self._tally.metrics(), "margin": float(fmean(margins))}
        return TasksMet(n, metrics, latency=fmean(latencies), seconds=sum(seconds))
