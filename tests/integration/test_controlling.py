"""Acting on a sweep while it runs, or between two runs: logs, stop, drain, cancel, retry; and jobs that stall."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.drive import WorkerPool, drive
from tests.outputs import artifacts, the_ledger, trained, wait_for

Command = Callable[..., Any]
LONG = {
    "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 16},
    "training": {"num_batches": 300},
    "evaluation": {"at": [16]},
    "scenario": "GG",
}


@pytest.mark.parametrize(
    ("verb", "told"), [("drain", "ends what is under way"), ("stop", "what was done is committed")]
)
def test_a_running_sweep_is_ended_and_gone_on_with(
    verb: str, told: str, launch: Command, supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
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
    assert "is not running here" in again.err
    found = supsup("resume", "--local")
    assert found.code == 0, found.err
    assert "16/16 shards" in found.out
    assert len(trained(tmp_path / "runs")) == 16


def test_the_log_is_lines_of_json_and_is_told_in_words(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    assert supsup("sweep", sweep_file(), "--local").code == 0
    (path,) = tmp_path.glob("runs/sweeps/*/supsup.log")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    events = [line for line in lines if line.get("event") == "trained"]
    assert [(line["task"], line["worker"]) for line in events] == [(0, 0), (1, 0), (2, 0)]
    for line in events:
        assert {"time", "level", "message", "sweep", "group", "key", "seconds", "accuracy"} <= set(line)
    assert lines[-1]["message"] == "the group ended: done"
    told = supsup("logs")
    assert told.code == 0
    assert "task 2 trained by worker 0 in " in told.out
    assert len(told.out.splitlines()) == len(lines)


@pytest.mark.parametrize("running", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_run_is_cancelled_and_taken_up_again(
    running: bool, launch: Command, supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    process = launch("sweep", sweep_file(**LONG, seeds=[0, 1]), "--local")
    wait_for(lambda: trained(tmp_path / "runs"))
    if not running:
        assert supsup("stop").code == 0
    cancelled = 0 if running else 1  # the one that is at work, or one that has not begun
    found = supsup("cancel", f"seed={cancelled}")
    assert found.code == 0, found.err
    process.communicate(timeout=200)
    assert process.returncode == (0 if running else 130)
    assert supsup("resume", "--local").code == 0  # leaves it alone
    states = {group["seed"]: group for group in json.loads(supsup("status", "--json").out)[0]["groups"]}
    assert states[cancelled]["state"] == "stopped"
    assert states[cancelled]["shards_done"] < 16
    assert (states[1 - cancelled]["state"], states[1 - cancelled]["shards_done"]) == ("done", 16)
    assert "nothing to cancel" in supsup("cancel", f"seed={cancelled}").err
    found = supsup("retry", f"seed={cancelled}", "--local")
    assert found.code == 0, found.err
    assert "32/32 shards" in found.out


def test_a_single_task_is_cancelled_and_taken_up_again(
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
def test_a_worker_is_taken_from_a_task_that_is_cancelled(
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


def test_a_task_is_trained_again_to_the_same_bits(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    assert supsup("sweep", sweep_file(), "--local").code == 0
    wanted = artifacts(tmp_path / "runs")
    assert supsup("retry", "GNu", "--task", 7, "--local").code == 2
    found = supsup("retry", "GNu", "--task", 1, "--local")
    assert found.code == 0, found.err
    assert "asked to be trained again" in found.out
    assert [row["facts"]["task"] for row in trained(tmp_path / "runs")] == [0, 1, 2, 1]
    assert artifacts(tmp_path / "runs") == wanted
    assert the_ledger(tmp_path / "runs").exists()


class SlowPool(WorkerPool):
    """Two workers; the second of the jobs takes for ever until it has been noted."""

    num_workers = 2

    def __init__(self) -> None:
        self.jobs: dict[int, dict[str, Any]] = {}
        self.noted = False

    def submit(self, worker: int, job: dict[str, Any]) -> None:
        self.jobs[worker] = job

    def wait(self, timeout: float) -> list[tuple[int, dict[str, Any]]]:
        ready = [worker for worker, job in self.jobs.items() if job["key"] != "b" or self.noted]
        return [(worker, {"status": "done", "key": self.jobs.pop(worker)["key"]}) for worker in ready]


class Books:
    """A coordinator of three jobs that says what it was told."""

    def __init__(self, pool: SlowPool) -> None:
        self._left = ["a", "b", "c"]
        self._pool = pool
        self.stalled: list[tuple[str, int, float, float | None]] = []

    def next_jobs(self, idle: list[int], exclude: list[str]) -> list[dict[str, Any]]:
        return [{"worker": worker, "kind": "train", "key": self._left.pop(0)} for worker in idle if self._left]

    def note_stalled(self, *found: Any) -> None:
        self.stalled.append(found)
        self._pool.noted = True

    def finished(self) -> bool:
        return True

    def end(self) -> str:
        return "done"

    def progress(self) -> dict[str, float]:
        return {}

    def report(self, outcome: dict[str, Any]) -> None: ...
    def pause(self) -> None: ...
    def stop(self) -> None: ...
    def cancel(self, tasks: Sequence[int]) -> list[str]: ...


def test_a_job_that_takes_far_longer_than_others_is_noted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.execution.drive.STALLED_SECONDS", 0.05)
    pool = SlowPool()
    books = Books(pool)
    drive(books, pool, lambda progress: None)
    ((key, _, seconds, usual),) = books.stalled
    assert key == "b"
    assert usual is not None
    assert seconds > 20 * usual
