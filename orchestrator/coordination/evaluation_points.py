"""Records the metrics of each evaluation point in the ledger when all evaluations of the point are done."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import TypeAlias, final

from orchestrator.coordination.group_journal import GroupJournal
from orchestrator.records.planned_group import PlannedRun
from orchestrator.records.rows import PointCompleted
from supsup_core.evaluation.point_metrics import point_metrics

Points: TypeAlias = Mapping[int, Sequence[str]]
"""Maps each evaluation point that a run has reached (a number of tasks learned) to the keys of its evaluations."""


@final
class DonePrefix:
    """Counts the keys at the start of a sequence that are done, up to the first key that is not done.

    Each call of `length` continues where the last call ended. A long sequence is therefore scanned only once.
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
    """Records the metrics of each evaluation point of a group once all evaluations of the point are done."""

    def __init__(
        self,
        journal: GroupJournal,
        points_of: Callable[[PlannedRun], Points],
        metrics_of: Callable[[int, Sequence[str]], dict[str, float]],
    ) -> None:
        """points_of: a function that returns the evaluation points that a run has reached so far.

        metrics_of: a function that returns metrics of a point in addition to `point_metrics`, given the number of tasks
        learned and the keys of the evaluations. One of these metrics must be `num_bytes`, the size in bytes of all
        tensors that the learner stores.
        """
        self._journal = journal
        self._points_of = points_of
        self._metrics_of = metrics_of
        self._done: dict[tuple[str, int], DonePrefix] = {}

    def record_complete(self) -> None:
        """Records the metrics of every completed point that is not recorded yet, in order of tasks learned.

        A point is recorded only after all smaller points of its run, and after the evaluations of its earlier tasks
        directly after they were learned.
        """
        state = self._journal.state
        for run in self._journal.group.runs:
            points = dict(sorted(self._points_of(run).items()))
            for n, keys in points.items():
                if (run.run_id, n) in state.points:
                    continue
                earlier = run.when_learned[: n - 1]
                needed = [*keys, *earlier]
                done = self._done.setdefault((run.run_id, n), DonePrefix(needed))
                if done.length(state.evaluated) < len(needed):
                    break
                tasks, when_learned = state.results_of(keys), state.results_of(earlier)
                metrics = point_metrics(str(run.experiment["scenario"]), tasks, when_learned)
                metrics |= self._metrics_of(n, keys)
                self._journal.record(PointCompleted(run.run_id, n, metrics, tuple(keys), earlier))
