"""The interface of a pool of workers, and a pool of one worker in this process. Each worker does one job at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, final

from orchestrator.coordination.messages import Job, Reply

if TYPE_CHECKING:  # loads torch, which a trial on Ray does not need, because its workers are other processes
    from orchestrator.execution.worker import Worker


class WorkerReply(NamedTuple):
    """A reply, and the number of the worker that gave it."""

    worker: int
    reply: Reply


class WorkerPool(ABC):
    """A pool of the workers 0 to num_workers-1. Each worker has at most one job at a time."""

    num_workers: int

    @abstractmethod
    def absent(self) -> set[int]:
        """Returns the workers that cannot accept a job yet, because they are starting or waiting for free resources."""

    @abstractmethod
    def submit(self, worker: int, job: Job) -> None:
        """Gives a job to an idle worker."""

    @abstractmethod
    def abandon(self, worker: int) -> None:
        """Ends a worker's job early; `wait` then returns Lost. A pool that cannot end a job lets the job continue."""

    @abstractmethod
    def wait(self, timeout: float) -> list[WorkerReply]:
        """Waits until a worker has replied or an absent worker has started. Returns the replies, possibly none.

        timeout: the longest wait, in seconds. If a worker died, the pool replaces the worker, and the reply to
        the worker's job is Lost.
        """


@final
class LocalPool(WorkerPool):
    """A pool of one worker in this process, without Ray, for `--local`. `wait` does the job and ignores `timeout`."""

    def __init__(self, worker: Worker, interrupted: Callable[[], bool]) -> None:
        """interrupted: a function that returns whether KeyboardInterrupt was raised in this process."""
        self.num_workers = 1
        self._worker = worker
        self._interrupted = interrupted
        self._job: Job | None = None

    def absent(self) -> set[int]:
        return set()

    def submit(self, worker: int, job: Job) -> None:
        self._job = job

    def abandon(self, worker: int) -> None:
        return  # nothing can end the job, because it runs in `wait`

    def wait(self, timeout: float) -> list[WorkerReply]:
        assert self._job is not None, "call submit() before wait()"
        job, self._job = self._job, None
        reply = self._worker.run(job)
        if self._interrupted():  # a library may have caught the KeyboardInterrupt, or the job failed because of it
            raise KeyboardInterrupt
        return [WorkerReply(0, reply)]
