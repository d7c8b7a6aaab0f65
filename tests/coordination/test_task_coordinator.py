"""The coordinator for given tasks: faults change no result, and no task is trained twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.coordination.control_files import Requests
from orchestrator.coordination.group_journal import MAX_RETRIES
from orchestrator.coordination.messages import Failed, Job, Lost, TrainJob
from orchestrator.coordination.settings import GroupSettings
from orchestrator.execution.open_coordinator import open_coordinator
from orchestrator.execution.worker_pool import WorkerReply
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledgers.ledger import LedgerWriter
from orchestrator.records.rows import RetryRequested
from supsup_core.methods import Problem
from supsup_core.methods.supsup import SupSup
from tests.scripted import ScriptedPool, in_output, run, run_with, settings_for, state_of


def science(state: GroupState) -> Any:
    """Returns the results, which must not depend on faults during the run."""
    return (
        {key: (row.event.facts, row.event.sha256) for key, row in state.trained.items()},
        {key: (row.event.facts, row.event.sha256) for key, row in state.evaluated.items()},
        {point: row.event.metrics for point, row in state.points.items()},
        state.status,
    )


def done(pool: ScriptedPool) -> list[tuple[str, str]]:
    return [(job.kind, job.key) for job in pool.done]


def trained_tasks(pool: ScriptedPool) -> list[list[int]]:
    """Returns the tasks of each finished training job."""
    return [[shard.task for shard in job.shards] for job in pool.done if isinstance(job, TrainJob)]


def test_each_job_is_done_once(group: GroupSettings) -> None:
    pool = run(group)
    assert Counter(kind for kind, _ in done(pool)) == {"train": 3, "evaluate": 5}
    assert max(Counter(done(pool)).values()) == 1
    state = state_of(group)
    assert state.status == "done"
    (run_id,) = {run_id for run_id, _ in state.points}
    metrics = state.points[(run_id, 3)].event.metrics
    assert 0 <= metrics["accuracy"] <= metrics["accuracy_labels_shared"] <= 1
    assert metrics["num_bytes"] == 3 * (24 + (64 * 300 + 300 * 100 + 100 * 30) // 8)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([None, None, "lost", "lost after", "replace", "kill", "kill after"]), max_size=14),
    st.integers(1, 3),
)
def test_random_faults_change_no_result(
    group: GroupSettings, tmp_path_factory: pytest.TempPathFactory, script: list[str | None], at_once: int
) -> None:
    group = replace(group, tasks_at_once=at_once)
    wanted = in_output(group, tmp_path_factory.mktemp("reference"))
    run(wanted)
    tried = in_output(group, tmp_path_factory.mktemp("tried"))
    while script:
        ends = [script.index(fault) for fault in ("kill", "kill after") if fault in script]
        cut = min(ends, default=len(script) - 1) + 1
        run(tried, script[:cut])
        script = script[cut:]
    run(tried)
    assert science(state_of(tried)) == science(state_of(wanted))


def test_tasks_that_do_not_fit_into_memory_together_are_trained_in_halves(
    group: GroupSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = in_output(group, tmp_path / "whole")
    run(whole)
    together = SupSup.learn_together

    def tight(self: SupSup, problem: Problem, numbers: Sequence[int], *rest: Any) -> Any:
        if len(numbers) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return together(self, problem, numbers, *rest)

    monkeypatch.setattr(SupSup, "learn_together", tight)
    group = replace(group, tasks_at_once=3)
    run(group, [None, "kill"])
    assert len(state_of(group).split) == 1
    pool = run(group)
    state = state_of(group)
    assert [len(tasks) for tasks in trained_tasks(pool)] == [1, 1, 1]
    assert len(state.split) == 2
    assert (state.status, state.retried, state.failed) == ("done", {}, {})
    assert state.trained.keys() == state_of(whole).trained.keys()


def test_workers_that_die_with_their_nodes_do_not_count_against_the_job(group: GroupSettings) -> None:
    coordinator = open_coordinator(group)
    (assignment,) = coordinator.next_jobs([0], [])
    key = assignment.job.key
    for _ in range(2 * MAX_RETRIES):
        coordinator.report(Lost(key, "train", "its node has died", node_lost=True))
    assert not coordinator.finished()
    for _ in range(MAX_RETRIES + 1):
        assert not coordinator.finished()
        coordinator.report(Lost(key, "train", "killed"))
    assert coordinator.finished()
    coordinator.close()


def test_a_lost_task_that_was_trained_with_others_is_trained_again_with_the_same_others(group: GroupSettings) -> None:
    group = replace(group, tasks_at_once=2)
    assert sorted(trained_tasks(run(group))) == [[0, 1], [2]]
    state = state_of(group)
    wanted = science(state)
    assert [row.event.facts.tasks_at_once for row in state.trained.values()].count(2) == 2
    path = group.open_store().path(group.group.shards[1].key)
    good = path.read_bytes()
    path.unlink()
    again = run(group)
    assert trained_tasks(again) == [[0, 1]]
    assert len(again.done) == 1
    assert path.read_bytes() == good
    assert science(state_of(group)) == wanted


def test_a_failed_job_of_several_tasks_names_them(group: GroupSettings) -> None:
    folder = group.folder.sweep.group("000000000000")
    group = replace(group, tasks_at_once=2, folder=folder, group=replace(group.group, group_id=folder.group_id))
    run(group)
    failed = state_of(group).failed
    assert failed
    assert {row.event.what for row in failed.values()} <= {"tasks 0 to 1", "task 2"}


def test_a_new_coordinator_trains_no_finished_task_again(group: GroupSettings) -> None:
    first = run(group, [None, None, "kill"])
    second = run(group)
    assert not set(done(first)) & set(done(second))
    assert len(first.done) + len(second.done) == 8
    assert run(group).done == []


def test_a_corrupt_ledger_is_replaced_by_its_snapshot_and_this_is_reported(group: GroupSettings) -> None:
    run(group)
    writer = LedgerWriter(group.folder.ledger)
    writer.snapshot()
    writer.close()
    for suffix in ("", "-wal", "-shm"):
        group.folder.ledger.with_name(group.folder.ledger.name + suffix).unlink(missing_ok=True)
    group.folder.ledger.write_bytes(b"no ledger")
    pool = run(group)
    assert done(pool) == []
    assert "restored from its intact rows or from its newest snapshot" in state_of(group).lost[0].event.reason


def test_a_corrupt_ledger_without_a_snapshot_is_rebuilt_from_the_store(group: GroupSettings) -> None:
    run(group)
    wanted = science(state_of(group))
    ledger = group.folder.ledger
    for path in group.folder.ledger_files:
        path.unlink()
    ledger.write_bytes(b"SQLite format 3\x00" + b"\xff" * 500)
    pool = run(group)
    state = state_of(group)
    assert pool.done == []
    assert science(state) == wanted
    assert (
        "a new ledger was built from the store, and a damaged ledger is kept as this file" in state.lost[0].event.reason
    )
    assert Path(state.lost[0].event.file).exists()


def test_after_a_flipped_byte_only_the_damaged_shard_is_trained_again(group: GroupSettings) -> None:
    run(group)
    wanted = science(state_of(group))
    key = group.group.shards[1].key
    path = group.open_store().path(key)
    good = path.read_bytes()
    path.write_bytes(good[:-3] + bytes([good[-3] ^ 4]) + good[-2:])
    pool = run(group)
    assert done(pool) == [("train", key)]
    assert path.read_bytes() == good
    state = state_of(group)
    assert science(state) == wanted
    (lost,) = state.lost
    assert lost.event.task == 1
    assert Path(lost.event.file).read_bytes() != good
    assert key in lost.event.reason


def test_an_artifact_that_becomes_corrupt_during_an_evaluation_is_recomputed(group: GroupSettings) -> None:
    class Spoiler(ScriptedPool):
        spoilt = False

        def submit(self, worker: int, job: Job) -> None:
            if job.kind == "evaluate" and not self.spoilt:
                group.open_store().path(group.group.shards[0].key).write_bytes(b"spoilt")
                self.spoilt = True
            super().submit(worker, job)

    pool = Spoiler(group, iter([]))
    assert run_with(group, pool) == "done"
    trained = [key for kind, key in done(pool) if kind == "train"]
    assert len(trained) == 4
    assert len(set(trained)) == 3


def test_a_job_fails_if_its_workers_die_repeatedly(group: GroupSettings) -> None:
    assert run_with(group, ScriptedPool(group, iter(["lost"] * 100))) == "failed"
    (failure, *_) = state_of(group).failed.values()
    assert f"{MAX_RETRIES + 1} workers died during this job" in failure.event.error
    assert run(group).done
    assert state_of(group).status == "done"


@pytest.mark.parametrize(
    ("transfer", "num_workers", "order"),
    [
        ("none", 1, ["train", "evaluate", "train", "evaluate", "train"]),
        ("masks", 1, ["train", "evaluate", "train", "evaluate", "train"]),
        ("masks", 2, ["train", "train", "train", "evaluate", "evaluate"]),
    ],
)
def test_evaluations_come_first_unless_the_next_task_would_wait_for_them(
    sweep_file: Callable[..., Path], transfer: str, num_workers: int, order: list[str]
) -> None:
    method = {"name": "supsup", "transfer": transfer}
    file = sweep_file(training={"num_batches": 5}, method=method, evaluation={"at": [1, 3]})
    pool = run(settings_for(file, num_workers))
    assert [kind for kind, _ in done(pool)] == [*order, *["evaluate"] * 3]


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_task_cancelled_during_its_training_is_left_out_and_can_be_retried(
    group: GroupSettings, tmp_path: Path, at_once: int
) -> None:
    group = replace(group, tasks_at_once=at_once)
    wanted: set[int] = set()

    class Patient(ScriptedPool):
        """A pool in which task 1 is cancelled during its training, and the coordinator can abandon its worker."""

        abandoned: int | None = None

        def submit(self, worker: int, job: Job) -> None:
            super().submit(worker, job)
            if isinstance(job, TrainJob) and any(shard.task == 1 for shard in job.shards):
                wanted.add(1)

        def abandon(self, worker: int) -> None:
            job = self._jobs[worker]
            assert isinstance(job, TrainJob)
            assert any(shard.task == 1 for shard in job.shards)
            self.abandoned = worker

        def wait(self, timeout: float) -> list[WorkerReply]:
            if wanted and self.abandoned is None:
                return []
            if self.abandoned in self._jobs:
                worker, self.abandoned = self.abandoned, -1
                return [self.lose(worker)]
            return super().wait(timeout)

    status = run_with(group, Patient(group, iter([])), Requests(cancel=lambda: wanted))
    state = state_of(group)
    assert status == state.status == "stopped"
    assert state.given_up
    assert sorted(row.event.facts.task for row in state.trained.values()) == [0, 2]
    assert [n for _, n in state.points] == [1]
    assert not state.retried
    assert run(group).done == []  # a resume does not train the cancelled task
    writer = LedgerWriter(group.folder.ledger)
    writer.append(RetryRequested((2,)))
    assert state_of(group).cancelled
    writer.append(RetryRequested((1,)))
    writer.close()
    assert [kind for kind, _ in done(run(group))] == ["train", *["evaluate"] * 4]
    undisturbed = in_output(group, tmp_path / "undisturbed")
    run(undisturbed)
    assert state_of(group).points.keys() == state_of(undisturbed).points.keys()
    if at_once == 1:  # otherwise the facts contain another tasks_at_once
        assert science(state_of(group)) == science(state_of(undisturbed))


def test_a_coordinator_opened_after_a_task_was_cancelled_abandons_the_same_job(group: GroupSettings) -> None:
    first = open_coordinator(group)
    jobs = first.cancel([1])
    first.close()
    assert jobs == [group.group.shards[1].key]
    second = open_coordinator(group)
    assert second.cancel([1]) == jobs
    second.report(Failed(jobs[0], "train", error="killed in the middle", traceback=""))
    second.close()
    state = state_of(group)
    assert not state.failed
    assert list(state.cancelled) == jobs


def test_an_error_in_user_code_fails_the_group_and_its_traceback_is_recorded(
    group: GroupSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, *arguments: object) -> None:
        raise ZeroDivisionError("in the user's method")

    monkeypatch.setattr(SupSup, "learn", broken)
    assert run_with(group, ScriptedPool(group, iter([]))) == "failed"
    (failure, *_) = state_of(group).failed.values()
    assert "ZeroDivisionError" in failure.event.error
    assert "in the user's method" in failure.event.traceback
    assert failure.event.what.startswith("task ")


def test_a_coordinator_that_continues_a_launch_records_no_plan_and_verifies_nothing(group: GroupSettings) -> None:
    """The launching process has done both. A trial that Ray Tune restarts must not repeat them."""
    run(group, [None, None, "kill"])
    path = group.open_store().path(group.group.shards[0].key)
    path.write_bytes(b"corrupt")
    before = state_of(group)
    coordinator = open_coordinator(replace(group, continues_launch=True))
    coordinator.close()
    after = state_of(group)
    assert after.last == before.last
    assert not after.lost
    assert path.read_bytes() == b"corrupt"
    again = open_coordinator(group)
    again.close()
    assert [row.event.key for row in state_of(group).lost] == [group.group.shards[0].key]
