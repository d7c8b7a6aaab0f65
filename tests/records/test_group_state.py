"""The state of a training group, replayed from the rows of its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.records.group_state import GroupState
from orchestrator.records.machine_kind import MachineKind, Machines
from orchestrator.records.planned_group import Evaluation
from orchestrator.records.rows import (
    AnyRow,
    ArtifactLost,
    Event,
    GroupPlanned,
    GroupStopped,
    JobFailed,
    JobRetried,
    JobSplit,
    JobStalled,
    LaunchEnded,
    PointCompleted,
    RetryRequested,
    RoundsCommitted,
    Row,
    ShardTrained,
    TaskCancelled,
    TaskEvaluated,
)
from supsup_core.errors import CorruptError
from tests.records.samples import (
    DECIDED,
    ENVIRONMENT,
    EVALUATED,
    EVENTS,
    GROUP,
    NNS_GROUP,
    ONE_KIND,
    OTHER_KIND,
    TRAINED,
)

PLANNED = GroupPlanned(GROUP, ENVIRONMENT)
KEYS = st.sampled_from("abcd")
SOME_EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(lambda key, task: ShardTrained(key, replace(TRAINED, task=task), "0"), KEYS, st.integers(0, 9)),
    st.builds(lambda key: TaskEvaluated(key, EVALUATED, "0", worker=0, seconds=1.0), KEYS),
    st.builds(lambda key: ArtifactLost(key, "f", "r"), KEYS),
    st.builds(lambda key, free: JobRetried(key, "r", free), KEYS, st.booleans()),
    st.builds(lambda key: JobFailed(key, "what", "error", ""), KEYS),
    st.builds(lambda key: JobStalled(key, "what", 0, 100.0, None), KEYS),
    st.builds(lambda key: TaskCancelled(key, 0), KEYS),
    st.builds(lambda n: PointCompleted("r", n, {}, ()), st.integers(1, 3)),
    st.sampled_from([*EVENTS, PLANNED, LaunchEnded("done"), LaunchEnded("failed"), GroupStopped(1), RetryRequested()]),
)


def rows_of(events: Sequence[Event], first: int = 1) -> list[AnyRow]:
    return [Row(number, number, event) for number, event in enumerate(events, start=first)]


def replayed(*events: Event) -> GroupState:
    return GroupState().apply(rows_of(events))


@given(st.lists(SOME_EVENTS, max_size=30), st.data())
def test_replaying_the_rows_in_several_parts_gives_the_same_state(events: list[Event], data: st.DataObject) -> None:
    rows = rows_of(events)
    cut = data.draw(st.integers(0, len(rows)))
    assert GroupState().apply(rows[:cut]).apply(rows[cut:]) == GroupState().apply(rows)


def test_the_first_result_of_a_key_counts_until_its_artifact_is_lost() -> None:
    state = replayed(ShardTrained("a", TRAINED, "1"), ShardTrained("a", TRAINED, "2"))
    assert state.trained["a"].event.sha256 == "1"
    state.apply(rows_of([ArtifactLost("a", "", ""), ShardTrained("a", TRAINED, "4")], first=3))
    assert state.trained["a"].event.sha256 == "4"
    assert [row.event.key for row in state.lost] == ["a"]


def test_worker_deaths_count_unless_the_whole_node_died() -> None:
    state = replayed(JobRetried("a", ""), JobRetried("a", "", free=True), JobRetried("b", "", free=True))
    assert state.retried == {"a": 1, "b": 0}


def test_a_new_launch_clears_failures_and_keeps_results() -> None:
    failed = JobFailed("b", "task 1", "error", "")
    state = replayed(PLANNED, ShardTrained("aa", TRAINED, "1"), failed, LaunchEnded("failed"))
    assert state.status == state.ended == "failed"
    assert state.hopeless
    state.apply(rows_of([PLANNED], first=5))
    assert (state.status, state.failed, list(state.trained)) == ("planned", {}, ["aa"])
    assert state.ended == "interrupted"
    assert not state.hopeless


def test_a_job_that_was_split_stays_split_in_the_next_launch() -> None:
    assert replayed(PLANNED, JobSplit("a", "out of memory"), PLANNED).split == {"a"}


def test_a_stalled_job_is_cleared_by_the_next_result_of_its_worker() -> None:
    stalled = JobStalled("a", "task 0", worker=1, seconds=100.0, usual_seconds=None)
    state = replayed(stalled, ShardTrained("b", TRAINED, "0", worker=0, seconds=1.0))
    assert list(state.stalled) == ["a"]
    state.apply(rows_of([ShardTrained("c", TRAINED, "0", worker=1, seconds=1.0)], first=3))
    assert not state.stalled


def test_a_retry_restores_the_named_cancelled_tasks_or_all_of_them() -> None:
    cancelled = [TaskCancelled("a", 0), TaskCancelled("b", 1), GroupStopped(1)]
    some = replayed(*cancelled, RetryRequested((1,)))
    assert list(some.cancelled) == ["a"]
    assert not some.given_up
    assert not replayed(*cancelled, RetryRequested()).cancelled


def test_a_diverged_trial_is_hopeless_and_a_stopped_trial_is_not() -> None:
    assert replayed(PLANNED, GroupStopped(1, diverged="DivergedError")).hopeless
    stopped = replayed(PLANNED, GroupStopped(1))
    assert stopped.given_up
    assert not stopped.hopeless


def test_progress_counts_only_results_in_the_plan() -> None:
    state = replayed(PLANNED, ShardTrained("aa", TRAINED, "1"), ShardTrained("other", TRAINED, "1"))
    assert (state.done_shards(), state.done_evaluations()) == (1, 0)
    assert state.num_masks() is None
    assert GroupState().done_shards() == GroupState().done_evaluations() == 0


def test_progress_of_nns_counts_whole_tasks_and_masks_in_use() -> None:
    second = replace(DECIDED, ordinal=1, outcome="train")
    third = replace(DECIDED, ordinal=2, outcome="reclaim", mask=1, freed=0)
    skipped = replace(DECIDED, ordinal=3, outcome="skip", mask=None)
    state = replayed(GroupPlanned(NNS_GROUP, ENVIRONMENT), DECIDED, second, third)
    assert (state.done_shards(), state.num_masks()) == (1, 1)
    state.apply(rows_of([skipped], first=5))
    assert (state.done_shards(), state.segments_not_trained()) == (2, 1)


def test_seconds_per_task_need_two_commits_of_this_launch() -> None:
    commits = [RoundsCommitted(number, {}, 0, 0.0, 0.0) for number in (1, 2, 5)]
    planned = GroupPlanned(NNS_GROUP, ENVIRONMENT)
    state = GroupState().apply([Row(1, 0, planned), *(Row(2 + i, 1000 * i, event) for i, event in enumerate(commits))])
    assert state.seconds_per_task() == pytest.approx(2 * 2 / 4)  # 2 s for 4 rounds; two segments per task, one stream
    state.apply([Row(5, 9000, planned), Row(6, 10_000, commits[-1])])
    assert state.seconds_per_task() is None


def test_a_ledger_without_a_plan_has_no_group() -> None:
    for name in ("group", "environment"):
        with pytest.raises(CorruptError, match="the ledger has no row with the plan"):
            getattr(GroupState(), name)


def test_the_machine_kinds_of_a_run_are_those_of_its_evaluations_and_of_the_commits() -> None:
    def evaluated(key: str, *machines: MachineKind) -> TaskEvaluated:
        return TaskEvaluated(key, replace(EVALUATED, machines=machines), "")

    third = replace(ONE_KIND, threads=4)
    state = replayed(
        GroupPlanned(NNS_GROUP, ENVIRONMENT),
        ShardTrained("aa", replace(TRAINED, machines=Machines([third])), ""),
        evaluated("ee", ONE_KIND),
        PointCompleted("r", 2, {}, ("ee",)),
        evaluated("ff", OTHER_KIND),
    )
    assert set(state.machines) == {third, ONE_KIND, OTHER_KIND}
    assert state.machines_of("r") == (ONE_KIND,)
    assert state.machines_of("another") == ()
    state.apply([Row(9, 9, RoundsCommitted(1, {}, 0, 0.0, 0.0, (OTHER_KIND,)))])
    assert state.machines_of("r") == (ONE_KIND, OTHER_KIND)
    assert state.machines_of("another") == ()


WITH_EARLIER = replace(GROUP, evaluations=(*GROUP.evaluations, Evaluation("dd", 0, 1, 0)), runs=(
    replace(GROUP.runs[0], when_learned=("dd",)),
))  # fmt: skip
"""The sample group, whose first task is also evaluated directly after it was learned, under the key `dd`."""


def state_with(*events: Event) -> GroupState:
    events = (GroupPlanned(WITH_EARLIER, ENVIRONMENT), *events)
    return GroupState().apply(Row(number, 0, event) for number, event in enumerate(events, start=1))


def test_evaluations_after_learning_are_needed_until_their_point_is_recorded() -> None:
    evaluations = [TaskEvaluated(key, EVALUATED, "0") for key in ("ee", "ff")]
    running = state_with(*evaluations)
    assert running.needed_evaluations() == {"dd", "ee", "ff"}
    assert running.done_evaluations() == 2
    old = state_with(*evaluations, PointCompleted("r", 2, {"accuracy": 0.5}, ("ee", "ff")))
    assert old.needed_evaluations() == {"ee", "ff"}
    assert old.done_evaluations() == 3  # an earlier version recorded the point without the third evaluation


def test_the_forgetting_of_earlier_versions_is_left_out() -> None:
    metrics = {"accuracy": 0.5, "forgetting": 0.1, "forgetting_strict": 0.2}
    old = state_with(PointCompleted("r", 2, metrics, ("ee", "ff")))
    assert old.points["r", 2].event.metrics == {"accuracy": 0.5}
    new = state_with(PointCompleted("r", 2, metrics, ("ee", "ff"), ("dd",)))
    assert new.points["r", 2].event.metrics == metrics


def test_the_machine_of_an_evaluation_after_learning_contributes_to_the_run() -> None:
    here, there = (replace(EVALUATED, machines=Machines([kind])) for kind in (ONE_KIND, OTHER_KIND))
    events = [TaskEvaluated("dd", there, "0"), TaskEvaluated("ee", here, "0"), TaskEvaluated("ff", here, "0")]
    state = state_with(*events, PointCompleted("r", 2, {"accuracy": 0.5}, ("ee", "ff"), ("dd",)))
    assert set(state.machines_of("r")) == {ONE_KIND, OTHER_KIND}
