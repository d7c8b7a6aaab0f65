"""The status of a sweep, computed only from its ledgers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.base.folder_lock import owned
from orchestrator.base.output_folder import OutputFolder, SweepFolder
from orchestrator.records.group_state import GroupState
from orchestrator.records.planned_group import GroupSize, Shard
from orchestrator.records.rows import (
    AnyRow,
    ArtifactLost,
    Event,
    GroupPlanned,
    GroupStopped,
    JobFailed,
    JobStalled,
    LaunchEnded,
    PointCompleted,
    RoundsCommitted,
    Row,
    ShardTrained,
    TaskCancelled,
    TaskEvaluated,
)
from orchestrator.results.status import group_status, sweep_status
from tests.records.samples import DECIDED, ENVIRONMENT, EVALUATED, GROUP, NNS_GROUP, TRAINED


def plan(size: GroupSize, num_workers: int, **changes: Any) -> GroupPlanned:
    """Returns the plan of a group of this size. The keys of its shards are 0, 1, …"""
    shards = tuple(Shard(str(number), number, ()) for number in range(size.shards))
    group = replace(GROUP, size=size, **{"shards": shards, "evaluations": (), "runs": (), **changes})
    return GroupPlanned(group, replace(ENVIRONMENT, num_workers=num_workers))


def replayed(*events: Event) -> GroupState:
    return GroupState().apply(Row(number, 1000 * number, event) for number, event in enumerate(events, start=1))


def group(num_workers: int, seconds: float | None) -> GroupState:
    """Returns the state of a group with ten shards, one of which was trained in `seconds`. None means that the shard
    was found in the store, so the group's training has not begun."""
    trained = ShardTrained("0", replace(TRAINED, accuracy=0.9), "", seconds=seconds)
    return replayed(plan(GroupSize(10, 0), num_workers), trained)


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return OutputFolder(tmp_path).sweep("quick-123456")


@pytest.mark.parametrize(
    ("num_workers", "begun", "rate"),
    [(1, 1, 0.5), (1, 2, 1.0), (3, 2, 3.0)],
)
def test_the_remaining_time_counts_all_workers_and_groups_that_train_in_parallel(
    num_workers: int, begun: int, rate: float, folder: SweepFolder
) -> None:
    states = {str(number): group(num_workers, 2.0 if number < begun else None) for number in range(4)}
    with owned(folder.path):
        status = sweep_status(folder, states, dict.fromkeys(states, GroupSize(10, 0)))
    assert status.tasks_per_second == pytest.approx(rate)
    assert status.eta == pytest.approx(36 / rate)


def test_the_speed_of_nns_is_the_speed_of_its_commits_since_the_launch(folder: SweepFolder) -> None:
    """With two streams and ten segments per task, 30 rounds in 12 s are 6 tasks. Neither the number of workers nor
    look-ahead training changes this."""
    planned = plan(GroupSize(100, 0), 3, shards=(), num_streams=2, segments_per_task=10)
    decision = replace(DECIDED, outcome="train", seconds=7.0, latency=0.1)

    def committed(seq: int, time_ms: int, rounds: int) -> AnyRow:
        return Row(seq, time_ms, RoundsCommitted(rounds, {}, 0, 0.0, 0.0))

    rows: list[AnyRow] = [Row(1, 0, planned), *(Row(2 + number, 0, decision) for number in range(100))]
    rows += [committed(200, 1_000, 50), Row(201, 9_000_000, planned)]
    states = {"group": GroupState().apply(rows)}
    with owned(folder.path):
        before = sweep_status(folder, states, {"group": GroupSize(100, 0)})
        states["group"].apply([committed(202, 9_010_000, 60), committed(203, 9_022_000, 90)])
        status = sweep_status(folder, states, {"group": GroupSize(100, 0)})
    assert before.tasks_per_second == pytest.approx(3 / 71)  # 100 segments of 7.1 s, three workers
    assert status.tasks_per_second == pytest.approx(6 / 12)
    assert status.eta == pytest.approx(90 / (6 / 12))


def test_a_group_that_has_not_begun_is_planned_and_has_no_results() -> None:
    status = group_status("abc", GroupState())
    assert (status.group_id, status.state, status.shards, status.accuracy) == ("abc", "planned", 0, None)


def test_a_status_lists_failed_lost_stalled_and_cancelled_tasks() -> None:
    state = replayed(
        plan(GroupSize(4, 0), 1),
        ArtifactLost("0", "store/00/0", "store/00/0: its bytes do not match", 0),
        JobStalled("1", "task 1", worker=0, seconds=90.0, usual_seconds=2.0),
        JobFailed("2", "task 2", "ZeroDivisionError: by zero", "Traceback"),
        TaskCancelled("3", 3),
    )
    status = group_status("abc", state)
    assert status.lost == ["store/00/0: its bytes do not match"]
    assert len(status.stalled) == 1
    assert "task 1 has run on worker 0 for 90 s" in status.stalled[0]
    assert status.failures == ["task 2: ZeroDivisionError: by zero"]
    assert (status.cancelled, status.shards) == ([3], 3)


def test_a_stopped_group_counts_only_its_finished_shards(folder: SweepFolder) -> None:
    state = replayed(
        plan(GroupSize(10, 4), 1), ShardTrained("0", TRAINED, "", seconds=1.0), GroupStopped(1), LaunchEnded("stopped")
    )
    status = sweep_status(folder, {"a": state}, {"a": GroupSize(10, 4)})
    assert (status.state, status.shards_done, status.shards, status.evaluations) == ("done", 1, 1, 0)
    assert status.eta == 0


def test_accuracy_is_the_mean_with_given_tasks_and_in_nns_the_last_evaluation_point() -> None:
    keys = [ShardTrained(str(task), replace(TRAINED, task=task, accuracy=0.2 * task), "") for task in (1, 2)]
    assert group_status("a", replayed(plan(GroupSize(3, 0), 1), *keys)).accuracy == pytest.approx(0.3)
    nns = replayed(GroupPlanned(NNS_GROUP, ENVIRONMENT), DECIDED, PointCompleted("r", 2, {"accuracy": 0.75}, ()))
    assert group_status("a", nns).accuracy is None  # no evaluation was due
    assert group_status("a", nns).masks == 1


@pytest.mark.parametrize("running", [True, False])
def test_a_running_group_without_a_process_is_shown_as_interrupted(running: bool, folder: SweepFolder) -> None:
    state = replayed(plan(GroupSize(2, 0), 1), ShardTrained("0", TRAINED, "", seconds=1.0))
    if running:
        with owned(folder.path):
            status = sweep_status(folder, {"a": state}, {"a": GroupSize(2, 0)})
        assert status.process is not None
    else:
        status = sweep_status(folder, {"a": state}, {"a": GroupSize(2, 0)})
        assert status.process is None
    wanted = "running" if running else "interrupted"
    assert (status.state, status.groups[0].state) == (wanted, wanted)
    assert status.to_node()["groups"][0]["group_id"] == "a"


def test_a_running_sweep_repeats_which_room_it_lacks_until_it_has_room(folder: SweepFolder) -> None:
    state = {"a": replayed(plan(GroupSize(2, 0), 1))}
    sizes = {"a": GroupSize(2, 0)}
    folder.group("a").path.mkdir(parents=True)
    folder.group("a").waiting_file.write_text("training group a \x1b[2Jhas waited: add nodes\n")
    folder.waiting_file.write_bytes(b"")
    assert sweep_status(folder, state, sizes).waiting == []  # no process runs the sweep: it was killed
    with owned(folder.path):
        assert sweep_status(folder, state, sizes).waiting == ["training group a [2Jhas waited: add nodes"]
        folder.group("a").waiting_file.unlink()
        assert sweep_status(folder, state, sizes).waiting == []


def test_the_time_of_an_evaluation_is_estimated_from_recent_evaluations_only() -> None:
    slow = [TaskEvaluated(f"s{number}", EVALUATED, "", seconds=100.0) for number in range(5)]
    fast = [TaskEvaluated(f"f{number}", EVALUATED, "", seconds=2.0) for number in range(50)]
    found = TaskEvaluated("found", EVALUATED, "")  # found in the store
    status = group_status("a", replayed(plan(GroupSize(1, 56), 1), *slow, *fast, found))
    assert status.evaluate_seconds == pytest.approx(2.0)
