"""The abstract base class of coordinators, and the objects that its methods take and return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orchestrator.coordination.messages import Assignment, JobKind, Reply
from orchestrator.records.group_state import LaunchStatus


@dataclass(frozen=True)
class Progress:
    """The progress of a group. `accuracy`: mean of the accuracies known so far, in [0, 1]; 0 if none is known."""

    shards_done: int
    evaluations_done: int
    accuracy: float


@dataclass(frozen=True)
class StalledJob:
    """A job that takes far longer than others of its kind. `usual_seconds`: None if no such job is done yet."""

    key: str
    kind: JobKind
    worker: int
    seconds: float
    usual_seconds: float | None


class Coordinator(ABC):
    """Assigns the jobs of one training group to workers and commits their replies.

    A coordinator is the only writer of its group's ledger. All its state is in the ledger or computed from the ledger,
    so that its process can be killed at any time and restarted. Calls are idempotent.
    """

    @abstractmethod
    def next_jobs(self, idle: Collection[int], exclude: Collection[str]) -> list[Assignment]:
        """Returns jobs that can start now, at most one for each idle worker.

        idle: numbers of the idle workers. exclude: keys of jobs that are in flight or postponed.
        """

    @abstractmethod
    def report(self, reply: Reply) -> None:
        """Applies a worker's reply. Reporting the same reply again changes nothing."""

    @abstractmethod
    def finished(self) -> bool:
        """Returns whether no job is left to assign, because all is done, a job has failed, or the group is paused."""

    @abstractmethod
    def pause(self) -> None:
        """Pauses the group at a point where no finished training is lost. No further jobs are assigned after that."""

    @abstractmethod
    def stop(self) -> None:
        """Stops the group permanently, as a search does with a trial that is worse than others.

        A resume does not continue a stopped group. Has no effect on a group that has finished or was stopped before.
        """

    @abstractmethod
    def cancel(self, tasks: Sequence[int]) -> list[str]:
        """Cancels tasks, except those that are trained already. Work that does not need the cancelled tasks continues.

        Returns the keys of the jobs that train any of the cancelled tasks. Does nothing in scenario NNs, because no
        task identities are given there.
        """

    @abstractmethod
    def note_stalled(self, stalled: StalledJob) -> None:
        """Records that a job has stalled."""

    @abstractmethod
    def progress(self) -> Progress:
        """Returns the progress of the group."""

    @abstractmethod
    def judged(self) -> list[tuple[int, float]]:
        """Returns (tasks learned, accuracy) at each completed evaluation point of the group's first run, in order of
        time. A search compares its trials by these values."""

    @abstractmethod
    def end(self) -> LaunchStatus:
        """Records how the launch ended, closes the ledger, and returns the status. No job may be in flight."""

    @abstractmethod
    def close(self) -> None:
        """Closes the ledger without recording an end of the launch."""
