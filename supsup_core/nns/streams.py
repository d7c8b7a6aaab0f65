"""Streams of data without task identities: the order in which segments of tasks arrive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from supsup_core import seeding
from supsup_core.errors import InputError
from supsup_core.field_limits import check_limits, limited

MOST_SEGMENTS = 1_000_000
"""The largest number of segments of a run. The paper's longest stream has 25,000."""


@dataclass(frozen=True, order=True)
class Segment:
    """A sequence of consecutive training batches of one task: the task's segment number `index`, counted from 0.

    The learner makes one decision for each segment.
    """

    task: int
    index: int


@dataclass(frozen=True, kw_only=True)
class Stream:
    """How the data of scenario NNs arrives (paper, section 3.4).

    A segment is `segment_batches` training batches of one task. `order`: with `blocks`, one whole task arrives after
    the other, in ascending order. With `recurring`, the segments of each task are divided into `visits` visits, and the
    visits of all tasks of a stream arrive in a shuffled order. `num_streams`: the number of parallel streams. Task i is
    in stream i mod num_streams.
    """

    order: Literal["blocks", "recurring"] = "blocks"
    segment_batches: int = limited(100, least=1)
    visits: int = limited(5, least=1)
    num_streams: int = limited(1, least=1)

    def __post_init__(self) -> None:
        check_limits(self)

    def segments_per_task(self, num_batches: int) -> int:
        """The number of segments of a task with `num_batches` batches.

        Raises InputError if a segment would be incomplete, or if a task has fewer segments than visits.
        """
        count, left = divmod(num_batches, self.segment_batches)
        if left or not count:
            raise InputError(
                f"segment_batches: {self.segment_batches} does not divide training.num_batches={num_batches}; "
                "change one of the two, so that each task has a whole number of segments"
            )
        if self.order == "recurring" and self.visits > count:
            raise InputError(
                f"visits: a task of {count} segments cannot be visited {self.visits} times; set at most {count}"
            )
        return count

    def sequences(self, num_tasks: int, num_batches: int, seed: int) -> list[list[Segment]]:
        """The segments of each stream, in the order in which they arrive.

        In both orders, the tasks of a stream first appear in ascending order, and the segments of a task are in the
        order of their indices. num_batches: the number of training batches of a task. Raises InputError if there are
        more than MOST_SEGMENTS segments.
        """
        count = self.segments_per_task(num_batches)
        if num_tasks * count > MOST_SEGMENTS:
            raise InputError(
                f"segment_batches: {num_tasks:,} tasks of {count:,} segments are more than {MOST_SEGMENTS:,} segments; "
                "raise stream.segment_batches, or lower benchmark.num_tasks or training.num_batches"
            )
        return [
            self._sequence(list(range(number, num_tasks, self.num_streams)), count, seed, number)
            for number in range(self.num_streams)
        ]

    def _sequence(self, tasks: list[int], count: int, seed: int, number: int) -> list[Segment]:
        if self.order == "blocks":
            return [Segment(task, index) for task in tasks for index in range(count)]
        child = seeding.child_seed(seed, "visits", number)
        drawn = seeding.permutation(child, len(tasks) * self.visits) // self.visits
        first_met: dict[int, int] = {}
        visited = [0] * len(tasks)
        segments = []
        for label in drawn.tolist():
            place = first_met.setdefault(label, len(first_met))
            visit = visited[place]
            visited[place] += 1
            begin, end = count * visit // self.visits, count * (visit + 1) // self.visits
            segments += [Segment(tasks[place], index) for index in range(begin, end)]
        return segments


@dataclass(frozen=True)
class Schedule:
    """The rounds of a run. In each round, every stream that has data left contributes one segment."""

    sequences: list[list[Segment]]
    segments_per_task: int

    @property
    def num_rounds(self) -> int:
        """The number of rounds until the longest stream ends."""
        return max(len(sequence) for sequence in self.sequences)

    def round(self, number: int) -> list[tuple[int, Segment]]:
        """The (stream, segment) pairs of round `number`, in the order of the streams, without ended streams."""
        return [(stream, found[number]) for stream, found in enumerate(self.sequences) if number < len(found)]

    def num_segments(self, num_rounds: int) -> int:
        """The number of segments in the first `num_rounds` rounds."""
        return sum(min(num_rounds, len(sequence)) for sequence in self.sequences)

    def tasks_met(self, num_rounds: int) -> list[int]:
        """The tasks with a segment in the first `num_rounds` rounds, ascending."""
        return sorted({segment.task for sequence in self.sequences for segment in sequence[:num_rounds]})

    def rounds_until(self, num_tasks: int) -> int:
        """The smallest number of rounds that contain at least as many segments as `num_tasks` whole tasks have."""
        wanted = num_tasks * self.segments_per_task
        low, high = 0, self.num_rounds
        while low < high:
            middle = (low + high) // 2
            if self.num_segments(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return low
