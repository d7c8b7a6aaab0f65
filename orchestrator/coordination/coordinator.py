"""The contract of a coordinator: what drives a training group asks of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orchestrator.coordination.messages import Assignment, JobKind, Reply
from orchestrator.records.group_state import LaunchStatus


@dataclass(frozen=True)
class Progress:
    """How far a group is. `accuracy`: in [0, 1], of what is known so far; 0 while nothing is."""

    shards_done: int
    evaluations_done: int
    accuracy: float


@dataclass(frozen=True)
class StalledJob:
    """A job that takes far longer than others of its kind. `usual_seconds`: None where no other is done yet."""

    key: str
    kind: JobKind
    worker: int
    seconds: float
    usual_seconds: float | None


class Coordinator(ABC):
    """Hands out the jobs of one training group and commits the replies. The only writer of the group's ledger.

    It keeps nothing in memory that is neither in the ledger nor computed from it, so it can be killed at any moment and
    opened again. Calls are idempotent.
    """

    @abstractmethod
    def next_jobs(self, idle: Collection[int], exclude: Collection[str]) -> list[Assignment]:
        """At most one job for each idle worker that can be done now.

        exclude: keys of jobs that are in flight or postponed.
        """

    @abstractmethod
    def report(self, reply: Reply) -> None:
        """Apply a worker's reply. Reporting the same reply again changes nothing."""

    @abstractmethod
    def finished(self) -> bool:
        """Whether nothing is left to hand out, now or later: all is done, a job has failed for good, or the group is
        paused."""

    @abstractmethod
    def pause(self) -> None:
        """Come to a stop where nothing is lost, and hand out nothing beyond."""

    @abstractmethod
    def stop(self) -> None:
        """Give the group up where it is, as a search does with a trial that falls behind. A resume leaves it alone.

        A group that has finished, or was stopped before, stays as it is.
        """

    @abstractmethod
    def cancel(self, tasks: Sequence[int]) -> list[str]:
        """Cancel those of some tasks that are not trained; what does not need them is done all the same.

        Returns the keys of the jobs that train any of them. In NNs, where no tasks are given, nothing is cancelled.
        """

    @abstractmethod
    def note_stalled(self, stalled: StalledJob) -> None:
        """Record that a job has stalled."""

    @abstractmethod
    def progress(self) -> Progress:
        """How far the group is."""

    @abstractmethod
    def judged(self) -> list[tuple[int, float]]:
        """The tasks learned and the accuracy at each evaluation point of the group's first run, in order of time."""

    @abstractmethod
    def end(self) -> LaunchStatus:
        """Record how the launch ended, close the ledger, and return the status. Called once nothing is in flight."""

    @abstractmethod
    def close(self) -> None:
        """Close the ledger, leaving the group as it is."""
