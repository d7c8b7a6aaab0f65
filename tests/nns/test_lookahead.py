"""Workers that train ahead of the decisions change no result."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.base.failpoints import set_failpoint
from orchestrator.coordination.messages import AdvanceJob
from tests.nns.small_runs import NNS, SURE, Make, files_of, science
from tests.scripted import run, state_of


@pytest.mark.parametrize("num_streams", [1, 3])
def test_the_number_of_workers_changes_nothing(make: Make, num_streams: int) -> None:
    stream = {**NNS["stream"], "num_streams": num_streams}
    one, three = make("one", 1, stream=stream), make("three", 3, stream=stream)
    run(one)
    run(three)
    assert science(one) == science(three)
    assert len(state_of(one).decisions) == 15


def test_idle_workers_train_later_segments_ahead(make: Make) -> None:
    """One stream keeps three workers busy, and no segment that they train ahead is trained twice."""
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
    """No segment reaches this epsilon. So each gets a mask of its own, which is not predicted, within the budget."""
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
    assert predicted - wanted  # else this test shows nothing
    files = {path.stem for path in files_of(three)}
    assert files <= wanted


def test_a_job_that_fails_ahead_of_its_decision_fails_nothing(make: Make) -> None:
    one, two = make("one", 1, **SURE), make("two", 2, **SURE)
    run(one)
    failed: set[str] = set()

    def fail_at_first(job: object) -> None:
        if isinstance(job, AdvanceJob) and job.version.mask == 2 and not failed:
            failed.add(job.key)
            raise RuntimeError("as the test wants it")

    set_failpoint("job_begins", fail_at_first)
    pool = run(two)
    assert failed
    assert science(one) == science(two)
    assert [job.key in failed for job in pool.done].count(True) == 1
    assert not state_of(two).failed


@pytest.mark.parametrize("at", [3, 7, 12, 15, 17, 19, 21, 23])
def test_a_run_goes_on_without_a_worker_that_is_never_replaced(make: Make, at: int) -> None:
    """Also where the worker held masks that no commit has put on disk yet, and during a commit."""
    one, two = make("one", 1, **SURE), make("two", 2, **SURE)
    run(one)
    run(two, [None] * at + ["gone"])
    assert science(one) == science(two)
