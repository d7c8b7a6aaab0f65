"""Detection of jobs that take far longer than other jobs of their kind."""

from __future__ import annotations

import pytest

from orchestrator.coordination.coordinator import StalledJob
from orchestrator.coordination.messages import EvaluateJob, TrainJob
from orchestrator.execution.stall_watch import STALLED_SECONDS, STALLED_TIMES, STALLED_UNKNOWN_SECONDS, StallWatch
from tests.execution.clock import Clock


@pytest.fixture
def watch(clock: Clock) -> StallWatch:
    return StallWatch(clock)


def train(key: str) -> TrainJob:
    return TrainJob(key, (), {}, 0)


def evaluate(key: str) -> EvaluateJob:
    return EvaluateJob(key, 0, 1, (0,), {}, "i", 0)


def do(watch: StallWatch, clock: Clock, job: TrainJob | EvaluateJob, seconds: float, done: bool = True) -> None:
    watch.begin(0, job)
    clock.now += seconds
    watch.end(0, done)


def test_a_job_stalls_once_it_takes_many_times_as_long_as_usual(watch: StallWatch, clock: Clock) -> None:
    do(watch, clock, train("a"), 10.0)
    watch.begin(1, train("b"))
    clock.now += STALLED_TIMES * 10.0
    assert list(watch.newly_stalled()) == []
    clock.now += 1.0
    assert list(watch.newly_stalled()) == [StalledJob("b", "train", 1, STALLED_TIMES * 10.0 + 1, 10.0)]
    clock.now += 1000.0
    assert list(watch.newly_stalled()) == []  # a stalled job is reported only once


def test_short_jobs_do_not_stall_before_a_minute(watch: StallWatch, clock: Clock) -> None:
    do(watch, clock, train("a"), 0.1)
    watch.begin(1, train("b"))
    clock.now += STALLED_SECONDS - 0.5
    assert list(watch.newly_stalled()) == []
    clock.now += 1.0
    assert [stalled.key for stalled in watch.newly_stalled()] == ["b"]


def test_the_first_job_of_a_kind_may_take_an_hour(watch: StallWatch, clock: Clock) -> None:
    do(watch, clock, evaluate("a"), 1.0)
    watch.begin(1, train("b"))
    clock.now += STALLED_UNKNOWN_SECONDS
    assert list(watch.newly_stalled()) == []
    clock.now += 1.0
    (stalled,) = watch.newly_stalled()
    assert (stalled.key, stalled.usual_seconds) == ("b", None)


def test_only_finished_jobs_count_for_the_usual_time(watch: StallWatch, clock: Clock) -> None:
    do(watch, clock, train("a"), 1000.0, done=False)
    do(watch, clock, train("b"), 10.0)
    do(watch, clock, train("c"), 20.0)
    watch.begin(1, train("d"))
    clock.now += STALLED_TIMES * 11.0 + 1
    (stalled,) = watch.newly_stalled()
    assert stalled.usual_seconds == pytest.approx(11.0)  # an exponential moving average


def test_a_worker_can_stall_again_at_its_next_job(watch: StallWatch, clock: Clock) -> None:
    do(watch, clock, train("a"), 10.0)
    for key in ("b", "c"):
        watch.begin(1, train(key))
        clock.now += STALLED_TIMES * 10.0 + 1
        assert [stalled.key for stalled in watch.newly_stalled()] == [key]
        watch.end(1, False)
