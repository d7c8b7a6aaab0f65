"""Evaluation points that become complete while a group's evaluations come in."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import TypeAlias, final

from orchestrator.coordination.group_journal import GroupJournal
from orchestrator.records.planned_group import PlannedRun
from orchestrator.records.rows import PointCompleted
from supsup_core.evaluation.point_metrics import point_metrics

Points: TypeAlias = Mapping[int, Sequence[str]]
"""The evaluation points of a run that can be named so far: tasks learned to the keys of the evaluations."""


@final
class DonePrefix:
    """How many of some keys are done, from the first on without a gap.

    Each call continues where the last one ended, so that thousands of keys cost nothing.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        self._length = 0

    def length(self, done: Container[str]) -> int:
        """The length of the prefix whose keys are all in `done`, which only grows between calls of `reset`."""
        while self._length < len(self._keys) and self._keys[self._length] in done:
            self._length += 1
        return self._length

    def reset(self) -> None:
        """Check all keys again: one that was done may be so no longer."""
        self._length = 0


@final
class EvaluationPoints:
    """Records the metrics of each evaluation point once all its evaluations are done."""

    def __init__(
        self,
        journal: GroupJournal,
        points_of: Callable[[PlannedRun], Points],
        metrics_of: Callable[[int, Sequence[str]], dict[str, float]],
    ) -> None:
        """points_of: the points of a run, as far as they can be named. metrics_of: further metrics of the learner after
        so many tasks, given the keys of the evaluations: `num_bytes` stored, at least."""
        self._journal = journal
        self._points_of = points_of
        self._metrics_of = metrics_of
        self._done: dict[tuple[str, int], DonePrefix] = {}

    def record_complete(self) -> None:
        """Record the metrics of every point that has become complete, in order of tasks learned."""
        state = self._journal.state
        for run in self._journal.group.runs:
            points = dict(sorted(self._points_of(run).items()))
            for n, keys in points.items():
                if (run.run_id, n) in state.points:
                    continue
                done = self._done.setdefault((run.run_id, n), DonePrefix(keys))
                if done.length(state.evaluated) < len(keys):
                    break
                counts = {m: state.results_of(its_keys) for m, its_keys in points.items() if m <= n}
                metrics = point_metrics(str(run.experiment["scenario"]), counts, n) | self._metrics_of(n, keys)
                self._journal.record(PointCompleted(run.run_id, n, metrics, tuple(keys)))
