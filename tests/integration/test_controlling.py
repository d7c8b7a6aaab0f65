"""Commands that control a sweep: logs, stop, drain, cancel and retry; and the detection of stalled jobs."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.base.sealed_json import seal, unseal
from orchestrator.coordination.coordinator import Coordinator, Progress, StalledJob
from orchestrator.coordination.messages import Assignment, Done, Job, Reply, TrainJob
from orchestrator.execution.drive import drive
from orchestrator.execution.worker_pool import WorkerPool, WorkerReply
from orchestrator.records.group_state import LaunchStatus
from orchestrator.records.planned_group import Shard
from tests.outputs import artifacts, the_ledger, trained, wait_for

Command = Callable[..., Any]
LONG = {
    "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 16},
    "training": {"num_batches": 300},
    "evaluation": {"at": [16]},
    "scenario": "GG",
}


@pytest.mark.parametrize(
    ("verb", "told"),
    [
        ("drain", "stops when the work in progress"),
        ("stop", "is finishing its work; stop the process at once with: supsup stop"),
    ],
)
def test_a_running_sweep_is_stopped_and_resumed(
    verb: str,
    told: str,
    launch: Command,
    supsup: Command,
    sweep_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.cli.verbs.operate.stop.PATIENCE_SECONDS", 0.0)
    process = launch("sweep", sweep_file(**LONG), "--local")
    wait_for(lambda: trained(tmp_path / "runs"))
    found = supsup(verb)
    assert found.code == 0, found.err
    assert told in found.out
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Go on with: supsup resume" in out
    before = len(trained(tmp_path / "runs"))
    assert 0 < before < 16
    again = supsup(verb)
    assert again.code == 2
    assert "is not running on this machine" in again.err
    found = supsup("resume", "--local")
    assert found.code == 0, found.err
    assert "16/16 shards" in found.out
    assert len(trained(tmp_path / "runs")) == 16


def test_the_log_file_is_lines_of_json_and_is_printed_as_text(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    assert supsup("sweep", sweep_file(), "--local").code == 0
    (path,) = tmp_path.glob("runs/sweeps/*/supsup.log")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    events = [line for line in lines if line.get("event") == "trained"]
    assert [(line["task"], line["worker"]) for line in events] == [(0, 0), (1, 0), (2, 0)]
    for line in events:
        assert {"time", "level", "message", "sweep", "group", "key", "seconds", "accuracy"} <= set(line)
    assert lines[-1]["message"] == "the training group ended: done"
    told = supsup("logs")
    assert told.code == 0
    assert "task 2 trained by worker 0 in " in told.out
    assert len(told.out.splitlines()) == len(lines)


@pytest.mark.parametrize("running", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_run_is_cancelled_and_retried(
    running: bool, launch: Command, supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    process = launch("sweep", sweep_file(**LONG, seeds=[0, 1]), "--local")
    wait_for(lambda: trained(tmp_path / "runs"))
    if not running:
        assert supsup("stop").code == 0
    cancelled = 0 if running else 1  # the running group, or one that has not begun
    found = supsup("cancel", f"seed={cancelled}")
    assert found.code == 0, found.err
    process.communicate(timeout=200)
    assert process.returncode == (0 if running else 130)
    assert supsup("resume", "--local").code == 0  # does not train the cancelled run
    states = {group["seed"]: group for group in json.loads(supsup("status", "--json").out)[0]["groups"]}
    assert states[cancelled]["state"] == "stopped"
    assert states[cancelled]["shards_done"] < 16
    assert (states[1 - cancelled]["state"], states[1 - cancelled]["shards_done"]) == ("done", 16)
    assert "nothing to cancel" in supsup("cancel", f"seed={cancelled}").err
    found = supsup("retry", f"seed={cancelled}", "--local")
    assert found.code == 0, found.err
    assert "32/32 shards" in found.out


def test_a_single_task_is_cancelled_and_retried(
    launch: Command, supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    process = launch("sweep", sweep_file(**LONG | {"evaluation": {"at": [8, 16]}}), "--local")
    wait_for(lambda: trained(tmp_path / "runs"))
    found = supsup("cancel", "GG", "--task", 12, "--task", 16)
    assert found.code == 2
    assert "has no task 16" in found.err
    found = supsup("cancel", "GG", "--task", 12)
    assert found.code == 0, found.err
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0
    assert "15/15 shards, 8/8 evaluations" in out
    assert "cancelled: task 12" in out
    (state,) = json.loads(supsup("status", "--json").out)[0]["groups"]
    assert (state["state"], state["cancelled"]) == ("stopped", [12])
    assert "nothing to cancel" in supsup("cancel", "GG", "--task", 3).err
    found = supsup("retry", "GG", "--task", 12, "--local")
    assert found.code == 0, found.err
    assert "16/16 shards, 16/16 evaluations" in found.out


@pytest.mark.long
def test_cancelling_a_task_frees_its_worker(
    launch: Command, supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    endless = {"training": {"num_batches": 10_000_000}, "evaluation": {"at": [16]}}
    process = launch("sweep", sweep_file(**LONG | endless, resources={"num_workers": 2}))
    wait_for(lambda: list((tmp_path / "runs").glob("store/claims/*")))
    tasks = [word for task in range(16) for word in ("--task", task)]
    assert supsup("cancel", "GG", *tasks).code == 0
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "0/0 shards" in out


def test_a_retry_that_cannot_run_changes_nothing(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert supsup("sweep", sweep_file(), "--local").code == 0
    wanted = artifacts(tmp_path / "runs")
    (record,) = (tmp_path / "runs").glob("sweeps/*/sweep.json")
    node, _ = unseal(record.read_bytes())
    node["config"]["resources"]["device"] = "cuda"
    record.write_bytes(seal(node))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    found = supsup("retry", "GNu", "--task", 1, "--local")
    assert (found.code, "resources.device" in found.err) == (2, True)
    assert artifacts(tmp_path / "runs") == wanted


def test_a_task_is_trained_again_to_the_same_bits(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    assert supsup("sweep", sweep_file(), "--local").code == 0
    wanted = artifacts(tmp_path / "runs")
    assert supsup("retry", "GNu", "--task", 7, "--local").code == 2
    found = supsup("retry", "GNu", "--task", 1, "--local")
    assert found.code == 0, found.err
    assert "the user requested a retry" in found.out
    assert [row["facts"]["task"] for row in trained(tmp_path / "runs")] == [0, 1, 2, 1]
    assert artifacts(tmp_path / "runs") == wanted
    assert the_ledger(tmp_path / "runs").exists()


def train(key: str) -> TrainJob:
    return TrainJob(key, (Shard(key, 0, ()),), {}, 0)


class SlowPool(WorkerPool):
    """A fake pool of two workers. The second job is done only after it was reported as stalled."""

    def __init__(self) -> None:
        self.num_workers = 2
        self.jobs: dict[int, Job] = {}
        self.reported = False

    def absent(self) -> set[int]:
        return set()

    def submit(self, worker: int, job: Job) -> None:
        self.jobs[worker] = job

    def abandon(self, worker: int) -> None:
        raise AssertionError("this test cancels no task")

    def wait(self, timeout: float) -> list[WorkerReply]:
        ready = [worker for worker, job in self.jobs.items() if job.key != "b" or self.reported]
        return [WorkerReply(worker, Done(self.jobs.pop(worker).key, ())) for worker in ready]


class ThreeJobs(Coordinator):
    """A fake coordinator with three jobs that records the reports it receives."""

    def __init__(self, pool: SlowPool) -> None:
        self._left = ["a", "b", "c"]
        self._pool = pool
        self.stalled: list[StalledJob] = []

    def next_jobs(self, idle: Collection[int], exclude: Collection[str]) -> list[Assignment]:
        return [Assignment(worker, train(self._left.pop(0))) for worker in idle if self._left]

    def note_stalled(self, stalled: StalledJob) -> None:
        self.stalled.append(stalled)
        self._pool.reported = True

    def finished(self) -> bool:
        return True

    def end(self) -> LaunchStatus:
        return "done"

    def progress(self) -> Progress:
        return Progress(0, 0, 0.0)

    def judged(self) -> list[tuple[int, float]]:
        return []

    def cancel(self, tasks: Sequence[int]) -> list[str]:
        return []

    def report(self, reply: Reply) -> None: ...
    def pause(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


def test_a_job_that_takes_far_longer_than_others_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.execution.stall_watch.STALLED_SECONDS", 0.05)
    pool = SlowPool()
    coordinator = ThreeJobs(pool)
    assert drive(coordinator, pool, lambda progress: None) == "done"
    (stalled,) = coordinator.stalled
    assert stalled.key == "b"
    assert stalled.usual_seconds is not None
    assert stalled.seconds > 20 * stalled.usual_seconds
