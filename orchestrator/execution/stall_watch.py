"""How long jobs take, and which take far too long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, final

from orchestrator.coordination.coordinator import StalledJob
from orchestrator.coordination.messages import Job, JobKind

STALLED_SECONDS = 60.0
"""A job is not reported as stalled before it has taken so long."""

STALLED_TIMES = 20
"""A job is reported as stalled once it has taken so many times as long as others of its kind did."""

STALLED_UNKNOWN_SECONDS = 3600.0
"""How long the first job of a kind may take."""


class _Running(NamedTuple):
    kind: JobKind
    key: str
    started: float


@final
class StallWatch:
    """Times the jobs of a group. What is usual for a kind is a moving average."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds that never decrease."""
        self._clock = clock
        self._running: dict[int, _Running] = {}
        self._usual: dict[JobKind, float] = {}
        self._reported: set[int] = set()

    def begin(self, worker: int, job: Job) -> None:
        """A worker begins a job."""
        self._running[worker] = _Running(job.kind, job.key, self._clock())
        self._reported.discard(worker)

    def end(self, worker: int, done: bool) -> None:
        """A worker's job has ended; only one that is done counts for what is usual."""
        job = self._running.pop(worker)
        if done:
            took = self._clock() - job.started
            self._usual[job.kind] = 0.9 * self._usual.get(job.kind, took) + 0.1 * took

    def newly_stalled(self) -> Iterator[StalledJob]:
        """The jobs that have stalled since the last call."""
        for worker, job in self._running.items():
            usual = self._usual.get(job.kind)
            allowed = STALLED_UNKNOWN_SECONDS if usual is None else max(STALLED_SECONDS, STALLED_TIMES * usual)
            took = self._clock() - job.started
            if took > allowed and worker not in self._reported:
                self._reported.add(worker)
                yield StalledJob(job.key, job.kind, worker, took, usual)
