"""The assignment of jobs to workers that have the masks in memory."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.coordination.messages import Assignment, RebuildJob
from orchestrator.nns.mask_holders import MaskHolders, Preference
from tests.coordination.test_messages import VERSION


def job(key: str) -> RebuildJob:
    return RebuildJob(key, VERSION)


def preferences() -> Iterator[Preference]:
    yield Preference(job("only 2"), 2, only=True)
    yield Preference(job("best 1"), 1, only=False)
    yield Preference(job("any"), None, only=False)


def assigned(found: list[Assignment]) -> dict[str, int]:
    return {assignment.job.key: assignment.worker for assignment in found}


def test_each_job_goes_to_its_preferred_worker_if_that_worker_is_idle() -> None:
    holders, idle = MaskHolders.empty(), {0, 1, 2}
    assert assigned(holders.assign(preferences(), idle, ())) == {"only 2": 2, "best 1": 1, "any": 0}
    assert not idle
    assert holders.assigned == {"only 2": 2, "best 1": 1, "any": 0}


def test_a_job_bound_to_a_busy_worker_waits_and_other_jobs_go_to_any_worker() -> None:
    holders, idle = MaskHolders.empty(), {0, 3}
    assert assigned(holders.assign(preferences(), idle, ())) == {"best 1": 0, "any": 3}


def test_jobs_in_flight_are_not_assigned_again() -> None:
    holders, idle = MaskHolders.empty(), {0, 1, 2}
    assert assigned(holders.assign(preferences(), idle, {"only 2", "any"})) == {"best 1": 1}
    assert idle == {0, 2}


def test_a_reply_tells_which_worker_did_the_job() -> None:
    holders = MaskHolders({}, {"a": 1})
    assert (holders.release("a"), holders.release("a"), holders.release("b")) == (1, None, None)


def test_the_masks_of_a_worker_that_died_are_forgotten() -> None:
    holders = MaskHolders({0: 1, 1: 0, 2: 1}, {})
    holders.forget_worker(1)
    assert holders.worker_of == {1: 0}
