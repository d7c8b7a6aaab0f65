"""Driving one training group to its end: a coordinator, a pool of workers, and jobs between them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.coordination.control_files import NOTHING, Asked

if TYPE_CHECKING:  # the process that drives a group on Ray needs no torch, which takes seconds and 200 MB
    from orchestrator.coordination.coordinator import Coordinator
    from orchestrator.coordination.messages import Job, Outcome

BUSY_SECONDS = 2.0
"""How long to wait before asking again for a job that another sweep has claimed."""


PROGRESS_SECONDS = 1.0
"""How often the scheduler is told how far the group is."""


class CoordinatorLike(Protocol):
    """What driving a group needs of a coordinator, here or in another process."""

    def next_jobs(self, idle: Sequence[int], exclude: Sequence[str]) -> list[Job]: ...
    def report(self, outcome: Outcome) -> None: ...
    def finished(self) -> bool: ...
    def pause(self) -> None: ...
    def stop(self) -> None: ...
    def cancel(self, tasks: Sequence[int]) -> list[str]: ...
    def progress(self) -> dict[str, float]: ...
    def note_stalled(self, key: str, worker: int, seconds: float, usual_seconds: float | None) -> None: ...
    def end(self) -> str: ...


class WorkerPool(ABC):
    """Workers that do one job each at a time."""

    num_workers: int

    def absent(self) -> set[int]:
        """Workers that cannot take a job yet: they are starting, or wait for room in the cluster."""
        return set()

    @abstractmethod
    def submit(self, worker: int, job: Job) -> None:
        """Give an idle worker a job."""

    def abandon(self, worker: int) -> None:
        """Have the job that a worker is at end as `lost`, where that can be; else it ends as it would have."""
        return

    @abstractmethod
    def wait(self, timeout: float) -> list[tuple[int, Outcome]]:
        """The workers that have finished since, with their outcomes; at most `timeout` seconds for one, and no longer
        than until one that was absent is there.

        A worker that died is replaced, and its job's outcome is `lost`.
        """


class LocalPool(WorkerPool):
    """One worker in this process, for `--local`: the same code without Ray."""

    num_workers = 1

    def __init__(self, settings: dict[str, Any], interrupted: Callable[[], bool] = lambda: False) -> None:
        """interrupted: whether KeyboardInterrupt was raised in this process."""
        from orchestrator.execution.worker import Worker

        self._worker = Worker({**settings, "number": 0})
        self._interrupted = interrupted
        self._job: Job | None = None

    def submit(self, worker: int, job: Job) -> None:
        self._job = job

    def wait(self, timeout: float) -> list[tuple[int, Outcome]]:
        assert self._job is not None, "wait() follows submit()"
        job, self._job = self._job, None
        outcome = self._worker.run(job)
        if self._interrupted():  # a library has caught it, and the job may have failed by that
            raise KeyboardInterrupt
        return [(0, outcome)]


def open_coordinator(settings: dict[str, Any]) -> Coordinator:
    """The coordinator of a group: of NNs where no task identity is given, of shards where it is."""
    if settings["group"]["segments_per_task"] is not None:
        from orchestrator.nns.coordinator import StreamCoordinator

        return StreamCoordinator(settings)
    from orchestrator.coordination.task_coordinator import TaskCoordinator

    return TaskCoordinator(settings)


def drive(
    coordinator: CoordinatorLike,
    pool: WorkerPool,
    on_progress: Callable[[dict[str, float]], None],
    asked: Asked = NOTHING,
    every: float = PROGRESS_SECONDS,
) -> str:
    """Run the group to its end; returns done, stopped, failed or interrupted. What is committed survives this being
    killed.

    Asked to pause or to stop, it ends where nothing is lost; of a task that is cancelled, training that is under way is
    abandoned. `on_progress` is called at most `every` so many seconds, and at the end.
    """
    idle = set(range(pool.num_workers))
    in_flight: dict[int, str] = {}
    cancelled: set[int] = set()
    watch = _Watch()
    set_back: dict[str, float] = {}
    progress_due = 0.0
    while True:
        now = time.monotonic()
        set_back = {key: until for key, until in set_back.items() if until > now}
        if asked.pause():
            coordinator.pause()  # each time: a coordinator that was replaced has not heard of it
        if asked.stop():
            coordinator.stop()
        if not cancelled >= (wanted := asked.cancel()):
            cancelled |= wanted
            abandoned = coordinator.cancel(sorted(cancelled))
            for worker in (worker for worker, key in in_flight.items() if key in abandoned):
                pool.abandon(worker)
        free = sorted(idle - pool.absent())
        jobs = coordinator.next_jobs(free, [*in_flight.values(), *set_back]) if free else []
        for job in jobs:
            idle.remove(job["worker"])
            in_flight[job["worker"]] = job["key"]
            watch.begun(job)
            pool.submit(job["worker"], job)
        if not in_flight:
            if coordinator.finished():
                on_progress(coordinator.progress())
                return coordinator.end()
            time.sleep(min(BUSY_SECONDS, 0.2))
            continue
        for worker, outcome in pool.wait(BUSY_SECONDS):
            del in_flight[worker]
            idle.add(worker)
            watch.ended(worker, outcome["status"] == "done")
            if outcome["status"] == "busy":
                set_back[outcome["key"]] = time.monotonic() + BUSY_SECONDS
                continue
            coordinator.report(outcome)
        for stalled in watch.stalled():
            coordinator.note_stalled(*stalled)
        if now >= progress_due:
            on_progress(coordinator.progress())
            progress_due = now + every


STALLED_SECONDS = 60.0
"""A job is not noted as stalled before it has taken so long."""

STALLED_TIMES = 20
"""A job is noted as stalled once it has taken so many times as long as others of its kind did."""

STALLED_UNKNOWN_SECONDS = 3600.0
"""How long the first of a kind may take."""


class _Watch:
    """How long jobs take, and which take far too long."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[str, str, float]] = {}
        self._usual: dict[str, float] = {}
        self._noted: set[int] = set()

    def begun(self, job: Job) -> None:
        kind = "rebuild" if job["key"].startswith("rebuild-") else job["kind"]  # training again is no mere saving
        self._running[job["worker"]] = (kind, job["key"], time.monotonic())
        self._noted.discard(job["worker"])

    def ended(self, worker: int, done: bool) -> None:
        kind, _, started = self._running.pop(worker)
        if done:
            took = time.monotonic() - started
            self._usual[kind] = 0.9 * self._usual.get(kind, took) + 0.1 * took

    def stalled(self) -> Iterator[tuple[str, int, float, float | None]]:
        """The key, the worker, its seconds and the usual ones of each job that has just been found to be stalled."""
        for worker, (kind, key, started) in self._running.items():
            usual = self._usual.get(kind)
            allowed = STALLED_UNKNOWN_SECONDS if usual is None else max(STALLED_SECONDS, STALLED_TIMES * usual)
            took = time.monotonic() - started
            if took > allowed and worker not in self._noted:
                self._noted.add(worker)
                yield key, worker, took, usual
