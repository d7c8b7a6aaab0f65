"""Measures how long jobs take, and reports jobs that take far longer than usual."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, final

from orchestrator.coordination.coordinator import StalledJob
from orchestrator.coordination.messages import Job, JobKind

STALLED_SECONDS = 60.0
"""A job is reported as stalled only after it has run for at least this many seconds."""

STALLED_TIMES = 20
"""A job is reported as stalled only after it has run this many times as long as jobs of its kind usually take."""

STALLED_UNKNOWN_SECONDS = 3600.0
"""If no job of a kind is done yet, a job of this kind is reported as stalled after this many seconds."""


class _Running(NamedTuple):
    kind: JobKind
    key: str
    started: float


@final
class StallWatch:
    """Measures the times of jobs. The usual time for a kind of job is an exponential moving average of these times."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: a function that returns the time of a monotonic clock, in seconds."""
        self._clock = clock
        self._running: dict[int, _Running] = {}
        self._usual: dict[JobKind, float] = {}
        self._reported: set[int] = set()

    def begin(self, worker: int, job: Job) -> None:
        """Records that a worker begins a job."""
        self._running[worker] = _Running(job.kind, job.key, self._clock())
        self._reported.discard(worker)

    def end(self, worker: int, done: bool) -> None:
        """Records that a worker's job has ended. done: whether the job succeeded. The moving average covers only
        successful jobs."""
        job = self._running.pop(worker)
        if done:
            took = self._clock() - job.started
            self._usual[job.kind] = 0.9 * self._usual.get(job.kind, took) + 0.1 * took

    def newly_stalled(self) -> Iterator[StalledJob]:
        """Yields the jobs that have become stalled since the last call. Each job is reported once."""
        for worker, job in self._running.items():
            usual = self._usual.get(job.kind)
            allowed = STALLED_UNKNOWN_SECONDS if usual is None else max(STALLED_SECONDS, STALLED_TIMES * usual)
            took = self._clock() - job.started
            if took > allowed and worker not in self._reported:
                self._reported.add(worker)
                yield StalledJob(job.key, job.kind, worker, took, usual)
