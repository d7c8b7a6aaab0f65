"""Assigns the jobs of an NNs run to workers, and tracks which masks each worker holds in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

from orchestrator.coordination.messages import Assignment, Job


class Preference(NamedTuple):
    """A job and the worker that should do it. `worker`: None means any worker. `only`: whether the job must wait for
    this worker instead of going to another worker."""

    job: Job
    worker: int | None
    only: bool


@final
@dataclass
class MaskHolders:
    """Tracks which worker holds each mask, and which worker does each job.

    `worker_of`: maps each mask in the memory of a worker to this worker. `assigned`: maps the key of each job in flight
    to the worker that does the job.
    """

    worker_of: dict[int, int]
    assigned: dict[str, int]

    @classmethod
    def empty(cls) -> MaskHolders:
        """Returns an instance in which no worker holds a mask and no job is in flight."""
        return cls({}, {})

    def assign(self, preferences: Iterator[Preference], idle: set[int], exclude: Collection[str]) -> list[Assignment]:
        """Assigns jobs to idle workers, in the order of `preferences`. Removes these workers from `idle`.

        exclude: the keys of jobs that must not be assigned, because they are in flight or postponed.
        """
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
        """Records that a job is no longer in flight. Returns the worker that did the job, or None if the job was not
        in flight."""
        return self.assigned.pop(key, None)

    def forget_worker(self, worker: int) -> None:
        """Records that a worker died and no longer holds any mask in memory."""
        for mask in [mask for mask, holder in self.worker_of.items() if holder == worker]:
            del self.worker_of[mask]
