"""The abstract base class of coordinators, and the objects that its methods take and return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orchestrator.coordination.messages import Assignment, JobKind, Reply
from orchestrator.records.group_state import LaunchStatus


@dataclass(frozen=True)
class Progress:
    """The progress of a training group.

    `accuracy`: in [0, 1]; 0 if no accuracy is known yet. In scenario NNs, `accuracy` is the accuracy at the last
    completed evaluation point. In other scenarios, `accuracy` is the mean over all trained tasks whose artifact holds
    an accuracy.
    """

    shards_done: int
    evaluations_done: int
    accuracy: float


@dataclass(frozen=True)
class StalledJob:
    """A running job that takes far longer than usual.

    `seconds`: the time that the job has taken so far. `usual_seconds`: the moving average of the times of completed
    jobs of the same kind; None if no job of this kind is completed.
    """

    key: str
    kind: JobKind
    worker: int
    seconds: float
    usual_seconds: float | None


class Coordinator(ABC):
    """Assigns the jobs of one training group to workers, and commits the results in the workers' replies.

    A coordinator is the only writer of its group's ledger. The coordinator's process can be killed and restarted at any
    time, because a new coordinator restores the state from the ledger and the artifacts. `pause`, `stop` and `cancel`
    may be called repeatedly with the same request.
    """

    @abstractmethod
    def next_jobs(self, idle: Collection[int], exclude: Collection[str]) -> list[Assignment]:
        """Returns jobs that can start now, at most one for each idle worker.

        idle: numbers of the idle workers. exclude: keys of jobs that are in flight or postponed, and are not returned.
        """

    @abstractmethod
    def report(self, reply: Reply) -> None:
        """Applies a worker's reply to the group. Reporting the same `Done` reply again changes nothing."""

    @abstractmethod
    def finished(self) -> bool:
        """Returns whether no job is left to assign: all jobs are done, a job has failed, or the group is paused or
        stopped. Jobs may still be in flight."""

    @abstractmethod
    def pause(self) -> None:
        """Pauses the group: assigns no further jobs, except the jobs that NNs needs to commit the finished training."""

    @abstractmethod
    def stop(self) -> None:
        """Stops the group, for example because a search has found its trial worse than other trials.

        A resume does not continue a stopped group. Has no effect on a group that has finished or was stopped before.
        """

    @abstractmethod
    def cancel(self, tasks: Sequence[int]) -> list[str]:
        """Cancels tasks, except tasks that are already trained. Jobs that do not need a cancelled task continue.

        tasks: task numbers. Returns the keys of the jobs that train any of the cancelled tasks. In scenario NNs, does
        nothing and returns an empty list, because NNs gives no task identities.
        """

    @abstractmethod
    def note_stalled(self, stalled: StalledJob) -> None:
        """Records in the ledger that a job has stalled."""

    @abstractmethod
    def progress(self) -> Progress:
        """Returns the progress of the group."""

    @abstractmethod
    def judged(self) -> list[tuple[int, float]]:
        """Returns (tasks learned, accuracy in [0, 1]) of each completed evaluation point of the group's first run, in
        the order of completion. A search compares its trials by these values."""

    @abstractmethod
    def end(self) -> LaunchStatus:
        """Closes the ledger, and returns how the launch ended. No job may be in flight.

        The ledger records every status except `interrupted`.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes the ledger without recording how the launch ended."""
