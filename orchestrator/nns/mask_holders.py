"""Which worker does which job of an NNs run, and which masks each worker holds in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

from orchestrator.coordination.messages import Assignment, Job


class Preference(NamedTuple):
    """A job, the worker that is to do it if it is idle (None: any), and whether only that worker may."""

    job: Job
    worker: int | None
    only: bool


@final
@dataclass
class MaskHolders:
    """`worker_of`: masks to the workers that hold them in memory. `assigned`: jobs in flight to their workers."""

    worker_of: dict[int, int]
    assigned: dict[str, int]

    @classmethod
    def empty(cls) -> MaskHolders:
        """Nobody holds anything yet."""
        return cls({}, {})

    def assign(self, preferences: Iterator[Preference], idle: set[int], exclude: Collection[str]) -> list[Assignment]:
        """Jobs for idle workers, which are then removed from `idle`. exclude: keys of jobs not to assign."""
        assignments: list[Assignment] = []
        while idle and (preference := next(preferences, None)) is not None:
            job, best, only = preference
            if job.key in exclude or (only and best not in idle):
                continue
            worker = best if best is not None and best in idle else min(idle)
            idle.remove(worker)
            assignments.append(Assignment(worker, job))
            self.assigned[job.key] = worker
        return assignments

    def release(self, key: str) -> int | None:
        """The worker that did a job, which is then no longer in flight; None for an unknown job."""
        return self.assigned.pop(key, None)

    def forget_worker(self, worker: int) -> None:
        """Drop the masks of a worker that died."""
        for mask in [mask for mask, holder in self.worker_of.items() if holder == worker]:
            del self.worker_of[mask]
