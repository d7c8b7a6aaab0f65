"""The pending evaluations of an NNs run, and the mask versions that they need."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.coordination.messages import EvaluateJob
from orchestrator.nns.evaluations import NNsEvaluations
from orchestrator.records.group_state import GroupState
from orchestrator.records.rows import EvaluationDue
from tests.records.samples import NNS_GROUP, RUN

FIRST = replace(RUN, run_id="first", inference_id="i", points={1: (), 2: ()})
OTHER = replace(RUN, run_id="other", inference_id="j", points={2: ()})
GROUP = replace(NNS_GROUP, runs=(FIRST, OTHER))
DUE = {
    1: EvaluationDue(1, tasks=(0,), numbers=(0,), keys=("a1",), right=((0,),)),
    2: EvaluationDue(2, tasks=(0, 1), numbers=(0, 1), keys=("a2", "b1"), right=((0,), (1,))),
}


@pytest.fixture
def state() -> GroupState:
    return GroupState(due=dict(DUE))


@pytest.fixture
def evaluations(state: GroupState) -> NNsEvaluations:
    return NNsEvaluations(GROUP, state)


def jobs(evaluations: NNsEvaluations) -> list[EvaluateJob]:
    found = [assignment.job for assignment in evaluations.assign(set(range(20)), ())]
    return [job for job in found if isinstance(job, EvaluateJob)]


def test_each_inference_evaluates_every_task_met_with_all_masks(evaluations: NNsEvaluations) -> None:
    assert evaluations.points == [1, 2]
    assert evaluations.queue(2, {"a2", "b1"}) == []
    found = jobs(evaluations)
    assert [(job.inference_id, job.task, job.right, job.masks) for job in found] == [
        (inference, task, (task,), ("a2", "b1")) for inference in "ij" for task in (0, 1)
    ]
    assert len({job.key for job in found}) == 4
    assert evaluations.describe(found[3].key) == "evaluation of task 1"
    assert evaluations.describe("other") is None


def test_each_evaluation_point_has_the_keys_of_its_jobs(evaluations: NNsEvaluations) -> None:
    evaluations.queue(1, {"a1"})
    (job,) = jobs(evaluations)
    assert evaluations.points_of(FIRST)[1] == [job.key]
    assert list(evaluations.points_of(OTHER)) == [2]


def test_evaluations_that_are_recorded_are_not_queued(evaluations: NNsEvaluations, state: GroupState) -> None:
    for keys in evaluations.points_of(FIRST).values():
        state.evaluated |= dict.fromkeys(keys)  # type: ignore[arg-type]
    evaluations.queue(1, set())
    assert not evaluations
    assert evaluations.queue(2, {"a2"}) == ["b1"]
    assert [job.inference_id for job in jobs(evaluations)] == ["j", "j"]


def test_idle_workers_get_jobs_that_are_not_in_flight(evaluations: NNsEvaluations) -> None:
    evaluations.queue(2, {"a2", "b1"})
    first = jobs(evaluations)[0]
    idle = {3, 1}
    found = evaluations.assign(idle, {first.key})
    assert [assignment.worker for assignment in found] == [1, 3]
    assert first.key not in {assignment.job.key for assignment in found}
    assert not idle


def test_versions_are_needed_for_pending_evaluations_and_for_the_last_point_of_each_run(
    evaluations: NNsEvaluations, state: GroupState
) -> None:
    evaluations.queue(1, {"a1"})
    assert evaluations.needed_versions() == {"a1", "a2", "b1"}
    evaluations.remove(jobs(evaluations)[0].key)
    assert evaluations.needed_versions() == {"a2", "b1"}
    del state.due[2]
    assert evaluations.needed_versions() == set()


def test_versions_that_were_rebuilt_for_evaluations_are_returned_after_the_last_one(
    evaluations: NNsEvaluations,
) -> None:
    assert evaluations.queue(1, set()) == ["a1"]
    assert evaluations.queue(2, {"b1"}) == ["a2"]
    keys = [job.key for job in jobs(evaluations)]
    assert [evaluations.remove(key) for key in keys[:-1]] == [set()] * 4
    assert evaluations.remove(keys[-1]) == {"a1", "a2"}
    assert not evaluations
