"""What NNs tests at its points of evaluation: every task met so far, by the versions of the masks current then."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Set
from typing import Any

from orchestrator.base.keys import content_key
from orchestrator.coordination.coordinator import Points
from orchestrator.coordination.messages import Job
from orchestrator.records.group_state import GroupState


class StreamEvaluations:
    """The evaluations of one group: those waiting, and the versions of masks that they need."""

    def __init__(self, group: dict[str, Any], state: GroupState) -> None:
        """group: Group.to_node; state: of its ledger, as it grows."""
        self._group = group
        self._state = state
        self._queue: deque[Job] = deque()
        self._remade: set[str] = set()
        self._keys: dict[tuple[str, int], list[str]] = {}
        self.points = sorted({int(n) for run in group["runs"] for n in run["points"]})
        """How many tasks are met at each point of evaluation."""

    def __bool__(self) -> bool:
        """Whether any waits."""
        return bool(self._queue)

    def queue(self, n: int, stored: Set[str]) -> list[str]:
        """Queue what is still to be tested at point n; the versions it needs that are not stored any more."""
        wanted = [
            job
            for run in self._group["runs"]
            if str(n) in run["points"]
            for job in self._jobs_of(run, n)
            if job["key"] not in self._state.evaluated
        ]
        self._queue += wanted
        missing = [key for key in self._state.due[n]["keys"] if key not in stored] if wanted else []
        self._remade |= set(missing)
        return missing

    def _jobs_of(self, run: dict[str, Any], n: int) -> Iterator[Job]:
        due = self._state.due[n]
        for task, key, right in zip(due["tasks"], self._keys_of(run, n), due["right"], strict=True):
            yield {
                "kind": "evaluate", "key": key, "num_learned": n, "task": task, "right": right,
                "masks": due["keys"],
                "experiment": run["experiment"], "inference_id": run["inference_id"], "seed": self._group["seed"],
            }  # fmt: skip

    def _keys_of(self, run: dict[str, Any], n: int) -> list[str]:
        point = (run["inference_id"], n)
        if point not in self._keys:  # what was due never changes
            due = self._state.due[n]
            tested = content_key({"inference_id": run["inference_id"], "num_learned": n, "masks": due["keys"]})
            self._keys[point] = [
                content_key({"tested": tested, "task": task, "right": right})
                for task, right in zip(due["tasks"], due["right"], strict=True)
            ]
        return self._keys[point]

    def points_of(self, run: dict[str, Any]) -> Points:
        """The points of a run that have been reached, with the keys of what is tested at each."""
        return {n: self._keys_of(run, n) for n in sorted(self._state.due) if str(n) in run["points"]}

    def hand_out(self, free: set[int], taken: Set[str]) -> list[Job]:
        """One that waits and is not taken for each free worker, which is then free no more."""
        jobs: list[Job] = []
        for job in self._queue:
            if not free:
                break
            if job["key"] not in taken:
                worker = min(free)
                free.remove(worker)
                jobs.append({**job, "worker": worker})
        return jobs

    def needed(self) -> set[str]:
        """The versions that those waiting need; and those of each run's last point, as which it is loaded and exported,
        though their masks may be trained on after it."""
        last = {max(map(int, run["points"])) for run in self._group["runs"]}
        points = {job["num_learned"] for job in self._queue} | (last & set(self._state.due))
        return {key for n in points for key in self._state.due[n]["keys"]}

    def done(self, key: str) -> set[str]:
        """One is done. After the last, the versions that were made again for the evaluations alone."""
        self._queue = deque(job for job in self._queue if job["key"] != key)
        if self._queue:
            return set()
        spare, self._remade = self._remade, set()
        return spare

    def what(self, key: str) -> str | None:
        """One that waits in words; None if none has this key."""
        tasks = [job["task"] for job in self._queue if job["key"] == key]
        return f"evaluation of task {tasks[0]}" if tasks else None
