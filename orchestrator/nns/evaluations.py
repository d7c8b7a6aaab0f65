"""The evaluations of an NNs run. At each evaluation point, workers evaluate all tasks met so far with the masks in
use."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence, Set
from typing import final

from orchestrator.base.keys import content_key
from orchestrator.coordination.evaluation_points import Points
from orchestrator.coordination.messages import Assignment, EvaluateJob
from orchestrator.records.group_state import GroupState
from orchestrator.records.planned_group import PlannedGroup, PlannedRun


@final
class NNsEvaluations:
    """The queue of waiting evaluations of one training group, and the mask versions that these evaluations need.

    `points`: the evaluation points of all runs of the group, as numbers of tasks met, in ascending order.
    """

    def __init__(self, group: PlannedGroup, state: GroupState) -> None:
        """state: the state of the group. The journal updates this object with every row that it commits."""
        self._group = group
        self._state = state
        self._queue: deque[EvaluateJob] = deque()
        self._rebuilt: set[str] = set()
        self._keys: dict[tuple[str, int], Sequence[str]] = {}
        self.points = sorted({n for run in group.runs for n in run.points})

    def __bool__(self) -> bool:
        """Returns whether any evaluation is waiting."""
        return bool(self._queue)

    def queue(self, n: int, stored: Set[str]) -> list[str]:
        """Queues the evaluations of evaluation point n that are not done yet.

        stored: the keys of the mask versions on disk. Returns the keys of the mask versions that must be rebuilt: the
        queued evaluations need these versions, and `stored` does not contain them.
        """
        wanted = [
            job
            for run in self._group.runs
            if n in run.points
            for job in self._jobs_of(run, n)
            if job.key not in self._state.evaluated
        ]
        self._queue += wanted
        missing = [key for key in self._state.due[n].keys if key not in stored] if wanted else []
        self._rebuilt |= set(missing)
        return missing

    def _jobs_of(self, run: PlannedRun, n: int) -> Iterator[EvaluateJob]:
        due = self._state.due[n]
        for task, key, right in zip(due.tasks, self._keys_of(run, n), due.right, strict=True):
            yield EvaluateJob(key, task, n, right, run.experiment, run.inference_id, self._group.seed, masks=due.keys)

    def _keys_of(self, run: PlannedRun, n: int) -> Sequence[str]:
        point = (run.inference_id, n)
        if point not in self._keys:  # the keys can be cached, because the masks and tasks of a point never change
            due = self._state.due[n]
            tested = content_key({"inference_id": run.inference_id, "num_learned": n, "masks": due.keys})
            self._keys[point] = [
                content_key({"tested": tested, "task": task, "right": right})
                for task, right in zip(due.tasks, due.right, strict=True)
            ]
        return self._keys[point]

    def points_of(self, run: PlannedRun) -> Points:
        """Returns a mapping from each evaluation point that the run has reached to the keys of its evaluations."""
        return {n: self._keys_of(run, n) for n in sorted(self._state.due) if n in run.points}

    def assign(self, idle: set[int], exclude: Collection[str]) -> list[Assignment]:
        """Assigns waiting evaluations to idle workers, one to each worker. Removes these workers from `idle`.

        exclude: the keys of jobs that must not be assigned, because they are in flight or postponed.
        """
        assignments: list[Assignment] = []
        for job in self._queue:
            if not idle:
                break
            if job.key not in exclude:
                worker = min(idle)
                idle.remove(worker)
                assignments.append(Assignment(worker, job))
        return assignments

    def needed_versions(self) -> set[str]:
        """Returns the keys of the mask versions that waiting evaluations or the last evaluation point of a run need.

        Loading or exporting a run reads the versions at the last point. The versions at the last point may differ from
        the current versions, because masks may be trained further after the point.
        """
        last = {max(run.points) for run in self._group.runs}
        points = {job.num_learned for job in self._queue} | (last & set(self._state.due))
        return {key for n in points for key in self._state.due[n].keys}

    def remove(self, key: str) -> set[str]:
        """Removes the completed evaluation `key` from the queue.

        If the queue is now empty, returns the keys of the mask versions that were rebuilt only for evaluations. If
        evaluations are still waiting, returns an empty set.
        """
        self._queue = deque(job for job in self._queue if job.key != key)
        if self._queue:
            return set()
        spare, self._rebuilt = self._rebuilt, set()
        return spare

    def describe(self, key: str) -> str | None:
        """Returns a description of the waiting evaluation `key` in words, for messages. Returns None if no waiting
        evaluation has this key."""
        tasks = [job.task for job in self._queue if job.key == key]
        return f"evaluation of task {tasks[0]}" if tasks else None
