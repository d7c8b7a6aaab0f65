"""A worker does the jobs of its group, and replies to errors with a message."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.base.failpoints import set_failpoint
from orchestrator.coordination import task_checkpoint
from orchestrator.coordination.messages import Busy, Corrupt, Done, EvaluateJob, Failed, Job, TrainJob
from orchestrator.coordination.settings import GroupSettings
from orchestrator.execution import drive
from orchestrator.execution.open_coordinator import open_coordinator
from orchestrator.execution.worker import Worker
from orchestrator.execution.worker_pool import WorkerReply
from orchestrator.records.rows import ShardTrained
from supsup_core.errors import DivergedError, InputError
from supsup_core.methods.supsup import SupSup
from tests.scripted import ScriptedPool, in_output, needs_torch, run, run_with, settings_for, state_of


def first_job(settings: GroupSettings) -> Job:
    coordinator = open_coordinator(settings)
    (assignment,) = coordinator.next_jobs([0], [])
    coordinator.close()
    return assignment.job


def test_a_job_is_done_once_and_its_result_is_then_found_in_the_store(group: GroupSettings) -> None:
    job = first_job(group)
    made, found = Worker(group, 3).run(job), Worker(group, 4).run(job)
    assert isinstance(made, Done)
    assert isinstance(found, Done)
    ((one,), (other,)) = (made.product, found.product)
    assert isinstance(one, ShardTrained)
    assert isinstance(other, ShardTrained)
    assert (one.worker, one.resumed_at) == (3, 0)
    assert one.seconds is not None
    assert one.seconds > 0
    assert (other.worker, other.seconds, other.started_ms) == (None, None, None)
    assert (one.facts, one.sha256) == (other.facts, other.sha256)
    assert group.open_store().get(job.key).sha256 == one.sha256


def test_the_tasks_of_a_job_share_its_seconds_equally(group: GroupSettings) -> None:
    job = first_job(replace(group, tasks_at_once=3))
    assert isinstance(job, TrainJob)
    reply = Worker(group, 0).run(job)
    assert isinstance(reply, Done)
    results = [result for result in reply.product if isinstance(result, ShardTrained)]
    assert [result.facts.task for result in results] == [0, 1, 2]
    assert len({result.seconds for result in results}) == 1


def test_a_missing_artifact_that_an_evaluation_needs_is_reported_by_its_key(group: GroupSettings) -> None:
    run(group)
    evaluation = group.group.evaluations[0]
    planned = group.group.runs[0]
    job = EvaluateJob(
        evaluation.key, evaluation.task, evaluation.num_learned, (0,), planned.experiment, planned.inference_id,
        group.group.seed,
    )  # fmt: skip
    store, needed = group.open_store(), group.group.shards[0].key
    store.delete(evaluation.key)
    store.delete(needed)
    reply = Worker(group, 0).run(job)
    assert isinstance(reply, Corrupt)
    assert (reply.key, reply.artifact) == (job.key, needed)
    assert "missing" in reply.reason


@pytest.mark.parametrize(
    ("error", "diverged", "out_of_memory"),
    [
        (ZeroDivisionError("by zero"), False, False),
        (DivergedError("the training loss is nan"), True, False),
        (MemoryError("nothing left"), False, True),
        (torch.OutOfMemoryError("CUDA out of memory"), False, True),
    ],
)
def test_an_error_in_a_job_becomes_its_reply(
    group: GroupSettings, error: Exception, diverged: bool, out_of_memory: bool
) -> None:
    def fail(job: object) -> None:
        raise error

    set_failpoint("job_begins", fail)
    try:
        reply = Worker(group, 0).run(first_job(group))
    finally:
        set_failpoint("job_begins", None)
    assert isinstance(reply, Failed)
    assert reply.error == f"{type(error).__name__}: {error}"
    assert reply.traceback.startswith("Traceback")
    assert (reply.diverged, reply.out_of_memory) == (diverged, out_of_memory)


def test_a_single_task_that_does_not_fit_into_memory_fails_with_a_message(
    group: GroupSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise MemoryError("nothing left")

    monkeypatch.setattr(SupSup, "learn", full)
    run(group)
    state = state_of(group)
    assert state.status == "failed"
    assert {row.event.error for row in state.failed.values()} == {"MemoryError: nothing left"}


def test_tf32_and_deterministic_algorithms_are_set_as_requested(group: GroupSettings) -> None:
    precise = torch.backends.cuda.matmul, torch.backends.cudnn
    for wanted in (True, False):  # the last value is the default
        Worker(replace(group, deterministic=wanted, tf32=wanted), 0)
        assert [part.allow_tf32 for part in precise] == [wanted, wanted]
        assert torch.are_deterministic_algorithms_enabled() == wanted


def test_every_artifact_contains_the_hash_of_the_fixed_weights(group: GroupSettings) -> None:
    run(group)
    digests = {row.event.facts.weights_sha256 for row in state_of(group).trained.values()}
    assert len(digests) == 1
    assert len(digests.pop()) == 64
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("changes", "jobs", "what"),
    [
        ({}, 1, "evaluation of task 0"),
        ({}, 4, "evaluation of task"),
        ({"method": {"name": "batch_e"}, "scenario": "GG", "evaluation": {"at": [3]}}, 1, "task"),
    ],
    ids=["evaluated", "evaluated together", "trained further"],
)
def test_masks_of_other_frozen_weights_are_neither_evaluated_nor_trained_further(
    sweep_file: Callable[..., Path], other_weights: Callable[[], None], changes: dict[str, Any], jobs: int, what: str
) -> None:
    group = settings_for(sweep_file(training={"num_batches": 5}, **changes))
    run(group, [None] * (jobs - 1) + ["kill after"])
    before = state_of(group)
    other_weights()
    run(group)
    state = state_of(group)
    assert state.status == "failed"
    assert state.evaluated.keys() == before.evaluated.keys()
    for row in state.failed.values():
        assert row.event.what.startswith(what)
        file, _, reason = row.event.error.partition(": this result belongs to other frozen weights ")
        assert Path(file.removeprefix("SupSupError: ")) in set(group.open_store().folder.files())
        assert "numpy 99.0" in reason.partition("but this process has")[2]
        assert "\n" not in reason


def test_a_checkpoint_of_other_frozen_weights_is_not_resumed(
    group: GroupSettings, other_weights: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_checkpoint, "COST_SHARE", 0)

    def die_at_the_third(key: object) -> None:
        if str(key).endswith("-000000000003"):
            raise KeyboardInterrupt

    set_failpoint("writing_artifact", die_at_the_third)
    try:
        run(replace(group, commit_every=0.0))
    finally:
        set_failpoint("writing_artifact", None)
    other_weights()
    run(group)
    state = state_of(group)
    assert "store/unfinished/" in state.failed[group.group.shards[0].key].event.error
    assert not state.evaluated


def test_a_worker_refuses_a_job_if_the_users_source_changed_since_the_plan(group: GroupSettings) -> None:
    """After an edit during a sweep, results of the new source must not be stored under keys of the old source."""
    stale = replace(group, group=replace(group.group, group_id="000000000000"))
    reply = Worker(stale, 0).run(first_job(group))
    assert isinstance(reply, Failed)
    assert "has changed since the sweep started" in reply.error
    assert not list(group.open_store())


def test_replies_of_a_worker_are_unpickled_without_torch(group: GroupSettings) -> None:
    replies = run(group).replies
    assert {result.facts.kind for reply in replies for result in reply.product} == {"trained", "evaluated"}
    assert not needs_torch(replies)


@pytest.mark.parametrize(
    ("program", "spared"),
    [
        (
            "from orchestrator.execution.open_coordinator import open_coordinator\n"
            "open_coordinator(settings).next_jobs([0, 1], [])",
            "torch",
        ),
        ("from orchestrator.execution.worker import Worker; Worker(settings, 0).prepare()", "torch._dynamo"),
    ],
)
def test_a_process_imports_only_the_libraries_that_it_needs(group: GroupSettings, program: str, spared: str) -> None:
    program = (
        f"import pickle, sys; settings = pickle.load(sys.stdin.buffer)\n{program}\nprint({spared!r} in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(group), capture_output=True, check=False)
    assert found.stdout == b"False\n", found.stderr.decode()


def test_a_worker_waits_for_a_shard_that_another_sweep_has_claimed(
    group: GroupSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "BUSY_SECONDS", 0.05)
    key = group.group.shards[0].key
    claim = group.open_store().claim(key)
    assert claim.__enter__()
    other = replace(group, folder=group.folder.sweep.group("0123456789ab"))

    class Waiting(ScriptedPool):
        """A pool in which the other sweep finishes the shard after some `Busy` replies."""

        busy = 0

        def wait(self, timeout: float) -> list[WorkerReply]:
            found = super().wait(timeout)
            self.busy += sum(isinstance(reply, Busy) for _, reply in found)
            if self.busy == 3:
                self.busy += 1
                claim.__exit__(None, None, None)
                self.foreign = self._workers[0].run(first_job(other))
            return found

    pool = Waiting(group, iter([]))
    assert run_with(group, pool) == "done"
    assert pool.busy >= 3
    row = state_of(group).trained[key]
    assert row.event.seconds is None
    assert isinstance(pool.foreign, Done)
    (result,) = pool.foreign.product
    assert row.event.sha256 == result.sha256


def test_a_user_module_that_cannot_be_imported_is_an_input_error(group: GroupSettings, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(InputError, match=r"broken\.py"):
        Worker(replace(group, imports=("broken.py",), imports_folder=tmp_path), 0)


def test_images_whose_shape_differs_from_the_benchmarks_input_shape_are_refused(
    group: GroupSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from supsup_core.tasks.permuted import Permuted

    task = Permuted.task

    def cropped(self: Any, *arguments: Any) -> Any:
        made = task(self, *arguments)
        monkeypatch.setattr(type(made), "test_batch", lambda _, indices: (torch.zeros(len(indices), 56), indices))
        return made

    monkeypatch.setattr(Permuted, "task", cropped)
    reply = Worker(group, 0).run(first_job(group))
    assert isinstance(reply, Failed)
    assert "Permuted returns images of shape (56,), but its input_shape is (64,)" in reply.error


@pytest.mark.parametrize(
    "changes",
    [
        {"scenario": "GNu"},
        {"scenario": "GG", "method": {"name": "supsup", "transfer": "scores"}},
        {"scenario": "GG", "method": {"name": "lower_bound"}},
    ],
    ids=["masks", "masks with shared scores", "a shared trunk"],
)
def test_a_learner_that_grew_task_by_task_gives_the_artifacts_of_a_new_learner(
    changes: dict[str, Any], sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    group = settings_for(sweep_file(training={"num_batches": 5}, evaluation={"at": [3]}, **changes), num_workers=1)
    grown = Worker(group, 0)
    for shard in group.group.shards:
        assert isinstance(grown.run(TrainJob(shard.key, (shard,), group.group.experiment, group.group.seed)), Done)
    (planned,) = group.group.runs
    for number, evaluation in enumerate(group.group.evaluations):
        job = EvaluateJob(
            evaluation.key, evaluation.task, evaluation.num_learned, (evaluation.task,), planned.experiment,
            planned.inference_id, group.group.seed,
        )  # fmt: skip
        assert isinstance(grown.run(job), Done)
        fresh = in_output(group, tmp_path / str(number))
        for shard in group.group.shards:
            source, target = group.open_store().path(shard.key), fresh.open_store().path(shard.key)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
        assert isinstance(Worker(fresh, 0).run(job), Done)
        assert fresh.open_store().get(job.key).sha256 == group.open_store().get(job.key).sha256
