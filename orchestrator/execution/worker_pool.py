"""Workers that do one job each at a time: the contract, and one worker in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, final

from orchestrator.coordination.messages import Job, Reply

if TYPE_CHECKING:  # a trial on Ray has workers of its own processes, and loads no torch
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
        """Workers that cannot accept a job yet: they are starting, or wait for room in the cluster."""

    @abstractmethod
    def submit(self, worker: int, job: Job) -> None:
        """Give an idle worker a job."""

    @abstractmethod
    def abandon(self, worker: int) -> None:
        """End a worker's job as Lost, where that is possible; else it ends as it would have."""

    @abstractmethod
    def wait(self, timeout: float) -> list[WorkerReply]:
        """Wait at most `timeout` seconds for a reply, or until a worker that was absent is there.

        A worker that died is replaced, and its job's reply is Lost.
        """


@final
class LocalPool(WorkerPool):
    """One worker in this process, for `--local`: the same code without Ray."""

    def __init__(self, worker: Worker, interrupted: Callable[[], bool]) -> None:
        """interrupted: whether KeyboardInterrupt was raised in this process."""
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
        if self._interrupted():  # a library may have caught it, and the job may have failed because of it
            raise KeyboardInterrupt
        return [WorkerReply(0, reply)]
