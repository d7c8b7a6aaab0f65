"""Streams: the order in which segments arrive."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supsup_core.errors import InputError
from supsup_core.nns.streams import Schedule, Segment, Stream


def test_in_blocks_all_segments_of_a_task_arrive_in_one_sequence() -> None:
    (only,) = Stream(segment_batches=10).sequences(3, 30, seed=5)
    assert only == [Segment(task, index) for task in range(3) for index in range(3)]
    first, second = Stream(segment_batches=10, num_streams=2).sequences(5, 20, seed=5)
    assert [segment.task for segment in first] == [0, 0, 2, 2, 4, 4]
    assert [segment.task for segment in second] == [1, 1, 3, 3]


@given(st.integers(1, 12), st.integers(1, 6), st.integers(1, 4), st.integers(0, 99))
def test_recurring_delivers_all_segments_in_several_visits(
    num_tasks: int, visits: int, num_streams: int, seed: int
) -> None:
    stream = Stream(order="recurring", segment_batches=10, visits=visits, num_streams=num_streams)
    sequences = stream.sequences(num_tasks, 60, seed)
    assert sequences == stream.sequences(num_tasks, 60, seed)
    everything = [segment for sequence in sequences for segment in sequence]
    assert Counter(everything) == Counter(Segment(task, index) for task in range(num_tasks) for index in range(6))
    for sequence in sequences:
        met: list[int] = []
        for segment in sequence:
            assert segment.index == sum(other.task == segment.task for other in met_segments(sequence, segment))
            if segment.task not in met:
                met.append(segment.task)
        assert met == sorted(met)


def met_segments(sequence: list[Segment], until: Segment) -> list[Segment]:
    return sequence[: sequence.index(until)]


def test_recurring_tasks_come_back() -> None:
    (only,) = Stream(order="recurring", segment_batches=10, visits=5).sequences(10, 100, seed=0)
    changes = sum(a.task != b.task for a, b in itertools.pairwise(only))
    assert changes > 35
    assert only != Stream(order="recurring", segment_batches=10, visits=5).sequences(10, 100, seed=1)[0]


@given(st.integers(1, 9), st.integers(1, 4))
def test_a_schedule_knows_the_number_of_segments_in_its_rounds(num_tasks: int, num_streams: int) -> None:
    sequences = Stream(segment_batches=10, num_streams=num_streams).sequences(num_tasks, 30, seed=0)
    schedule = Schedule(sequences, 3)
    done: list[Segment] = []
    for number in range(schedule.num_rounds):
        assert schedule.num_segments(number) == len(done)
        assert schedule.tasks_met(number) == sorted({segment.task for segment in done})
        done += [segment for _, segment in schedule.round(number)]
    assert len(done) == 3 * num_tasks
    for n in range(1, num_tasks + 1):
        rounds = schedule.rounds_until(n)
        assert schedule.num_segments(rounds) >= 3 * n > schedule.num_segments(rounds - 1)


@pytest.mark.parametrize(
    ("fields", "num_batches", "message"),
    [
        ({"segment_batches": 30}, 100, "does not divide training.num_batches=100"),
        ({"segment_batches": 200}, 100, "does not divide"),
        ({"order": "recurring", "visits": 5}, 300, "cannot be visited 5 times; set at most 3"),
    ],
)
def test_segments_that_do_not_divide_a_task_are_refused(
    fields: dict[str, object], num_batches: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Stream(**fields).segments_per_task(num_batches)


@pytest.mark.parametrize("field", ["segment_batches", "visits", "num_streams"])
def test_invalid_streams_are_refused(field: str) -> None:
    with pytest.raises(InputError):
        Stream(**{field: 0})
