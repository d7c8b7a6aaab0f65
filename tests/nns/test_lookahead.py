"""Look-ahead training (speculative execution): workers train predicted segments early, which changes no result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from orchestrator.base.failpoints import set_failpoint
from orchestrator.coordination.messages import AdvancedMask, AdvanceJob
from orchestrator.nns.lookahead import Lookahead, TrainedAhead
from orchestrator.nns.mask_versions import Lineages
from orchestrator.nns.round import DecidedSegment
from supsup_core.masks import codec
from supsup_core.nets import Layer
from supsup_core.nns.allocation_tests import ALLOCATION_TESTS
from supsup_core.nns.allocator import Allocator, Decision, Outcome
from supsup_core.nns.streams import Schedule, Segment
from tests.nns.small_runs import NNS, SURE, Make, files_of, science
from tests.scripted import run, state_of


@pytest.mark.parametrize("num_streams", [1, 3])
def test_the_number_of_workers_changes_no_result(make: Make, num_streams: int) -> None:
    stream = {**NNS["stream"], "num_streams": num_streams}
    one, three = make("one", 1, stream=stream), make("three", 3, stream=stream)
    run(one)
    run(three)
    assert science(one) == science(three)
    assert len(state_of(one).decisions) == 15


def test_idle_workers_train_later_segments_ahead(make: Make) -> None:
    """One stream keeps three workers busy, and no segment is trained twice."""
    one, three = make("one", 1, **SURE), make("three", 3, **SURE)
    run(one)
    pool = run(three)
    assert science(one) == science(three)
    trained = [job for job in pool.done if isinstance(job, AdvanceJob)]
    assert len(trained) == len({job.key for job in trained}) == len(state_of(three).decisions) == 15
    assert {worker for worker, job in zip(pool.worked, pool.done, strict=True) if job.kind == "advance"} == {0, 1, 2}
    assert all(len(job.version.segments) == 1 for job in trained if job.version.base is not None)


@pytest.mark.parametrize("on_exhausted", ["reclaim", "skip"])
def test_a_wrong_prediction_costs_only_time(make: Make, on_exhausted: str) -> None:
    """With this epsilon, all data is classified as new. Each segment gets a new mask while the budget lasts, which the
    look-ahead does not predict."""
    odd: dict[str, Any] = {
        "allocation": {"name": "ratio", "epsilon": 50.0},
        "budget": {"num_masks": 7, "on_exhausted": on_exhausted},
    }
    one, three = make("one", 1, **odd), make("three", 3, **odd)
    run(one)
    pool = run(three)
    assert science(one) == science(three)
    wanted = {row.event.key for row in state_of(three).decisions}
    predicted = {job.key for job in pool.done if job.kind == "advance"}
    assert predicted - wanted  # otherwise no prediction was wrong, and the test would be useless
    files = {path.stem for path in files_of(three)}
    assert files <= wanted


def test_an_error_in_look_ahead_training_does_not_fail_the_run(make: Make) -> None:
    one, two = make("one", 1, **SURE), make("two", 2, **SURE)
    run(one)
    failed: set[str] = set()

    def fail_at_first(job: object) -> None:
        if isinstance(job, AdvanceJob) and job.version.mask == 2 and not failed:
            failed.add(job.key)
            raise RuntimeError("an error for this test")

    set_failpoint("job_begins", fail_at_first)
    pool = run(two)
    assert failed
    assert science(one) == science(two)
    assert [job.key in failed for job in pool.done].count(True) == 1
    assert not state_of(two).failed


@pytest.mark.parametrize("at", [3, 7, 12, 15, 17, 19, 21, 23])
def test_a_run_continues_without_a_worker_that_is_never_replaced(make: Make, at: int) -> None:
    """This holds even if the worker held masks that are not on disk yet, and if it dies during a commit."""
    one, two = make("one", 1, **SURE), make("two", 2, **SURE)
    run(one)
    run(two, [None] * at + ["gone"])
    assert science(one) == science(two)


def bits_of(number: int) -> codec.Bits:
    return codec.pack(np.random.default_rng(number).random(400) < 0.5)


def blocks(num_tasks: int, segments: int) -> Schedule:
    """Returns a schedule with one stream of tasks in blocks. segments: per task."""
    return Schedule([[Segment(task, index) for task in range(num_tasks) for index in range(segments)]], segments)


class Predicted:
    """A Lookahead with an allocator and lineages. A test makes the decisions and trains the jobs by hand."""

    def __init__(
        self, schedule: Schedule, num_workers: int = 3, points: Sequence[int] = (), capacity: int = 10
    ) -> None:
        self.allocator = Allocator(
            [Layer("only", (10, 40), 40)], ALLOCATION_TESTS["outlier"](), "skip", capacity, bits_of
        )
        self.lineages = Lineages("identity", segment_batches=20)
        self.ahead = Lookahead(schedule, self.allocator, self.lineages, points, num_workers=3, limit=1000)
        self.ahead.start(0)
        self.schedule = schedule
        self.num_rounds = 0

    def jobs(self, *exclude: str, waiting: Sequence[int] = ()) -> list[tuple[int, int]]:
        """Returns the mask and the number of segments of each look-ahead job."""
        found = self.ahead.jobs((), exclude, waiting, self.num_rounds)
        return [(job.mask, len(job.job.version.segments)) for job in found]

    def decide(self, mask: int, outcome: Outcome = "train") -> list[TrainedAhead]:
        """Decides one round of the only stream. Returns the look-ahead results that match the decision."""
        ((stream, segment),) = self.schedule.round(self.num_rounds)
        decision = Decision(len(self.allocator.live), 0.0, 0.0, None, None, outcome, mask, None)
        self.allocator.replay([decision])
        key = self.lineages.extend(mask, segment)
        self.num_rounds += 1
        return self.ahead.follow_round([DecidedSegment(stream, segment, decision, np.zeros(0), key)])

    def train(self, place: int = 0, worker: int | None = 1) -> str:
        """Marks one look-ahead job as done. Returns its key. place: the job's index."""
        job = list(self.ahead.jobs((), (), (), self.num_rounds))[place]
        self.ahead.keep(job.job.key, AdvancedMask(b"mask", 0.5, 0.25), worker)
        return job.job.key


def test_new_tasks_are_predicted_to_get_new_masks_and_versions_of_a_mask_are_trained_in_order() -> None:
    tried = Predicted(blocks(num_tasks=4, segments=2))
    assert tried.jobs() == [(0, 1), (1, 1), (2, 1), (3, 1)]  # the segments of two tasks for each worker
    first = tried.train()
    assert tried.jobs() == [(0, 2), (1, 1), (2, 1), (3, 1)]
    assert tried.ahead.is_beyond([0], ())
    assert not tried.ahead.is_beyond([1], ())
    (found,) = tried.decide(0, "allocate")
    assert (found.key, found.worker) == (first, 1)
    assert not tried.ahead.is_beyond([0], ())


def test_a_wrong_prediction_discards_the_training_that_depends_on_it() -> None:
    tried = Predicted(blocks(num_tasks=4, segments=2))
    tried.decide(0, "allocate")
    kept = tried.train(1)
    assert tried.ahead.keys() >= {kept}
    assert tried.decide(1, "allocate") == []  # the prediction was that mask 0 would train
    assert not tried.ahead.is_beyond(range(10), ())
    assert tried.jobs()[0][0] == 2


def test_failed_versions_versions_in_flight_and_waiting_masks_get_no_look_ahead_job() -> None:
    tried = Predicted(blocks(num_tasks=3, segments=2))
    keys = [job.job.key for job in tried.ahead.jobs((), (), (), 0)]
    tried.ahead.bar(keys[0])
    assert tried.jobs(keys[1]) == [(2, 1)]
    assert tried.jobs(waiting=[2]) == [(1, 1)]
    assert tried.ahead.is_beyond([1], [keys[1]])


def test_nothing_is_predicted_beyond_the_budget() -> None:
    tried = Predicted(blocks(num_tasks=4, segments=2), capacity=2)
    assert tried.jobs() == [(0, 1), (1, 1)]


def test_a_mask_that_an_evaluation_point_needs_is_not_trained_past_it() -> None:
    tried = Predicted(blocks(num_tasks=2, segments=4), points=[2])
    tried.train()
    tried.train()
    assert tried.jobs() == [(1, 1)]
    tried.decide(0, "allocate")
    tried.decide(0)
    assert tried.jobs() == [(0, 3), (1, 1)]


def test_masks_trained_ahead_are_limited_in_memory() -> None:
    tried = Predicted(blocks(num_tasks=3, segments=2))
    (job, *_) = tried.ahead.jobs((), (), (), 0)
    tried.ahead.keep(job.job.key, AdvancedMask(bytes(1001), 0.5, 0.25), 1)
    assert tried.jobs() == []
    tried.decide(0, "allocate")
    assert tried.jobs() != []


def test_the_look_ahead_results_of_a_dead_worker_are_forgotten() -> None:
    tried = Predicted(blocks(num_tasks=3, segments=2))
    tried.train(worker=1)
    assert next(tried.ahead.jobs((), (), (), 0)).holder == 1
    tried.ahead.forget_worker(1)
    assert next(tried.ahead.jobs((), (), (), 0)).holder is None
    (found,) = tried.decide(0, "allocate")
    assert found.worker is None
