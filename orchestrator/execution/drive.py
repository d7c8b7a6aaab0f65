"""Runs one training group to its end: passes jobs from the coordinator to the workers, and passes replies back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import final

from orchestrator.coordination.control_files import NO_REQUESTS, Requests
from orchestrator.coordination.coordinator import Coordinator, Progress
from orchestrator.coordination.messages import Busy, Done
from orchestrator.execution.stall_watch import StallWatch
from orchestrator.execution.worker_pool import WorkerPool
from orchestrator.records.group_state import LaunchStatus

BUSY_SECONDS = 2.0
"""The seconds for which a job is postponed if another process is computing the job's result. One wait for replies also
lasts at most this many seconds."""

PROGRESS_SECONDS = 1.0
"""The minimum number of seconds between two progress reports."""


def drive(
    coordinator: Coordinator,
    pool: WorkerPool,
    on_progress: Callable[[Progress], None],
    requests: Requests = NO_REQUESTS,
    every: float = PROGRESS_SECONDS,
) -> LaunchStatus:
    """Runs a training group to its end, and returns how it ended. Committed work survives if this process is killed.

    on_progress: called at most once per `every` seconds, and once when the group is finished. requests: read before
    jobs are given to workers. After a request to pause or stop, workers get no further jobs, except jobs that NNs needs
    for a commit. The group then ends when no job is running. After a request to cancel tasks, the jobs that train these
    tasks are abandoned.
    """
    loop = _Loop(coordinator, pool)
    progress_due = 0.0
    while True:
        now = time.monotonic()
        loop.obey(requests)
        loop.hand_out(now)
        if not loop.in_flight:
            if coordinator.finished():
                on_progress(coordinator.progress())
                return coordinator.end()
            time.sleep(min(BUSY_SECONDS, 0.2))
            continue
        loop.collect()
        if now >= progress_due:
            on_progress(coordinator.progress())
            progress_due = now + every


@final
class _Loop:
    """Passes jobs and replies between coordinator and workers. `in_flight`: maps a busy worker to its job's key."""

    def __init__(self, coordinator: Coordinator, pool: WorkerPool) -> None:
        self.in_flight: dict[int, str] = {}
        self._coordinator = coordinator
        self._pool = pool
        self._idle = set(range(pool.num_workers))
        self._cancelled: set[int] = set()
        self._postponed: dict[str, float] = {}
        self._watch = StallWatch()

    def obey(self, requests: Requests) -> None:
        """Passes requests on to the coordinator, and abandons the jobs that train cancelled tasks."""
        if requests.pause():
            self._coordinator.pause()
        if requests.stop():
            self._coordinator.stop()
        if not self._cancelled >= (wanted := requests.cancel()):
            self._cancelled |= wanted
            abandoned = self._coordinator.cancel(sorted(self._cancelled))
            for worker in [worker for worker, key in self.in_flight.items() if key in abandoned]:
                self._pool.abandon(worker)

    def hand_out(self, now: float) -> None:
        """Gives jobs to idle workers. now: the current time of the monotonic clock, in seconds."""
        self._postponed = {key: until for key, until in self._postponed.items() if until > now}
        free = sorted(self._idle - self._pool.absent())
        if not free:
            return
        for worker, job in self._coordinator.next_jobs(free, [*self.in_flight.values(), *self._postponed]):
            self._idle.remove(worker)
            self.in_flight[worker] = job.key
            self._watch.begin(worker, job)
            self._pool.submit(worker, job)

    def collect(self) -> None:
        """Waits for replies. Reports replies and stalled jobs to the coordinator, but postpones a job that is Busy."""
        for worker, reply in self._pool.wait(BUSY_SECONDS):
            del self.in_flight[worker]
            self._idle.add(worker)
            self._watch.end(worker, isinstance(reply, Done))
            if isinstance(reply, Busy):
                self._postponed[reply.key] = time.monotonic() + BUSY_SECONDS
            else:
                self._coordinator.report(reply)
        for stalled in self._watch.newly_stalled():
            self._coordinator.note_stalled(stalled)
