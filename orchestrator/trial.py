"""Driving one training group to its end: a coordinator, a pool of workers, and jobs between them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from orchestrator.worker import Job, Outcome, Worker

BUSY_SECONDS = 2.0
"""How long to wait before asking again for a job that another sweep has claimed."""


class CoordinatorLike(Protocol):
    """What driving a group needs of a coordinator, here or in another process."""

    def next_jobs(self, count: int, exclude: Sequence[str]) -> list[Job]: ...
    def report(self, outcome: Outcome) -> None: ...
    def finished(self) -> bool: ...
    def progress(self) -> dict[str, float]: ...
    def end(self) -> str: ...


class WorkerPool(ABC):
    """Workers that do one job each at a time."""

    num_workers: int

    @abstractmethod
    def submit(self, worker: int, job: Job) -> None:
        """Give an idle worker a job."""

    @abstractmethod
    def wait(self, timeout: float) -> list[tuple[int, Outcome]]:
        """The workers that have finished since, with their outcomes; at most `timeout` seconds for one.

        A worker that died is replaced, and its job's outcome is `lost`.
        """


class LocalPool(WorkerPool):
    """One worker in this process, for `--local`: the same code without Ray."""

    num_workers = 1

    def __init__(self, settings: dict[str, Any]) -> None:
        self._worker = Worker({**settings, "number": 0})
        self._job: Job | None = None

    def submit(self, worker: int, job: Job) -> None:
        self._job = job

    def wait(self, timeout: float) -> list[tuple[int, Outcome]]:
        assert self._job is not None, "wait() follows submit()"
        job, self._job = self._job, None
        return [(0, self._worker.run(job))]


def drive(coordinator: CoordinatorLike, pool: WorkerPool, on_progress: Callable[[dict[str, float]], None]) -> str:
    """Run the group to its end; returns done or failed. What is committed survives this being killed."""
    idle = list(range(pool.num_workers))
    in_flight: dict[int, str] = {}
    set_back: dict[str, float] = {}
    while True:
        now = time.monotonic()
        set_back = {key: until for key, until in set_back.items() if until > now}
        jobs = coordinator.next_jobs(len(idle), [*in_flight.values(), *set_back]) if idle else []
        for job in jobs:
            worker = idle.pop()
            in_flight[worker] = job["key"]
            pool.submit(worker, job)
        if not in_flight:
            if coordinator.finished():
                return coordinator.end()
            time.sleep(min(BUSY_SECONDS, 0.2))
            continue
        for worker, outcome in pool.wait(BUSY_SECONDS):
            del in_flight[worker]
            idle.append(worker)
            if outcome["status"] == "busy":
                set_back[outcome["key"]] = time.monotonic() + BUSY_SECONDS
                continue
            coordinator.report(outcome)
            on_progress(coordinator.progress())
