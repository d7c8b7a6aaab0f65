"""Records the metrics of evaluation points as soon as all their evaluations are done."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import TypeAlias, final

from orchestrator.coordination.group_journal import GroupJournal
from orchestrator.records.planned_group import PlannedRun
from orchestrator.records.rows import PointCompleted
from supsup_core.evaluation.point_metrics import point_metrics

Points: TypeAlias = Mapping[int, Sequence[str]]
"""The evaluation points of a run whose evaluations are known so far: number of tasks learned to evaluation keys."""


@final
class DonePrefix:
    """Counts how many keys at the start of a sequence are done, up to the first that is not.

    Each call of `length` continues where the last call ended, so that long sequences are scanned only once.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        self._length = 0

    def length(self, done: Container[str]) -> int:
        """Returns the length of the longest prefix whose keys are all in `done`.

        Keys may be added to `done` between calls. If a key is removed from `done`, call `reset`.
        """
        while self._length < len(self._keys) and self._keys[self._length] in done:
            self._length += 1
        return self._length

    def reset(self) -> None:
        """Makes the next call of `length` check all keys again."""
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
        """points_of: returns the evaluation points of a run that are known so far.

        metrics_of: returns further metrics of a point, given the number of tasks learned and the keys of the
        evaluations. They include at least `num_bytes`, the size of the learner's stored tensors.
        """
        self._journal = journal
        self._points_of = points_of
        self._metrics_of = metrics_of
        self._done: dict[tuple[str, int], DonePrefix] = {}

    def record_complete(self) -> None:
        """Records the metrics of every point that has become complete, in order of tasks learned."""
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
