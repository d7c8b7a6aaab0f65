"""The interface of a pool of workers that do one job each at a time, and a pool of one worker in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, final

from orchestrator.coordination.messages import Job, Reply

if TYPE_CHECKING:  # on Ray, workers are in other processes, so the trial's process need not load torch
    from orchestrator.execution.worker import Worker


class WorkerReply(NamedTuple):
    """A reply, and the number of the worker that gave it."""

    worker: int
    reply: Reply


class WorkerPool(ABC):
    """Workers 0..num_workers-1, each with at most one job."""

    num_workers: int

    @abstractmethod
    def absent(self) -> set[int]:
        """Returns the workers that cannot accept a job yet because they are starting or wait for free resources."""

    @abstractmethod
    def submit(self, worker: int, job: Job) -> None:
        """Give an idle worker a job."""

    @abstractmethod
    def abandon(self, worker: int) -> None:
        """End a worker's job with the reply Lost if that is possible. Otherwise the job continues normally."""

    @abstractmethod
    def wait(self, timeout: float) -> list[WorkerReply]:
        """Wait for a reply or until an absent worker has started, for at most `timeout` seconds. Returns the replies.

        A worker that died is replaced, and the reply of its job is Lost.
        """


@final
class LocalPool(WorkerPool):
    """A pool of one worker that runs in this process, for `--local`. It runs the same worker code without Ray."""

    def __init__(self, worker: Worker, interrupted: Callable[[], bool]) -> None:
        """interrupted: returns whether KeyboardInterrupt was raised in this process."""
        self.num_workers = 1
        self._worker = worker
        self._interrupted = interrupted
        self._job: Job | None = None

    def absent(self) -> set[int]:
        return set()

    def submit(self, worker: int, job: Job) -> None:
        self._job = job

    def abandon(self, worker: int) -> None:
        return  # the job runs within `wait`

    def wait(self, timeout: float) -> list[WorkerReply]:
        assert self._job is not None, "wait() follows submit()"
        job, self._job = self._job, None
        reply = self._worker.run(job)
        if self._interrupted():  # a library may have caught the KeyboardInterrupt, or the job failed because of it
            raise KeyboardInterrupt
        return [WorkerReply(0, reply)]
