"""Complete sweeps on real Ray workers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.outputs import artifacts, below, trained, wait_for

Call = Callable[..., tuple[int, str, str]]
TOYS = Path(__file__).with_name("toys.py")


@pytest.mark.long  # test_one_kill_changes_no_result compares both too
def test_ray_and_one_process_give_the_same_bits(call: Call, sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    file = sweep_file(grid={"scenario": ["GG", "GNu"]}, seeds=[0, 1])
    code, out, err = call("sweep", file, "output=ray")
    assert code == 0, err
    assert "6/6 shards" in out
    code, out, err = call("sweep", file, "output=local", "--local")
    assert code == 0, err
    assert artifacts(tmp_path / "ray") == artifacts(tmp_path / "local")
    assert len(artifacts(tmp_path / "ray")) == 6 + 2 * (3 + 4)
    workers = {row["worker"] for row in trained(tmp_path / "ray")}
    assert workers == {0, 1}
    tables = [(tmp_path / name).glob("sweeps/*/report/final.csv") for name in ("ray", "local")]
    assert next(tables[0]).read_text() == next(tables[1]).read_text()


@pytest.mark.long
def test_groups_with_sequential_tasks_run_in_parallel(
    call: Call, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    psp = {"scenario": "GG", "method": {"name": "psp"}, "training": {"num_batches": 800}, "benchmark": _tasks(5)}
    code, out, err = call("sweep", sweep_file(**psp, inference={}, seeds=[0, 1]))
    assert code == 0, err
    assert "10/10 shards" in out
    rows = trained(tmp_path / "runs")
    assert {row["worker"] for row in rows} == {0}
    spans = [(own[0]["started_ms"], own[-1]["started_ms"] + 1000 * own[-1]["seconds"]) for own in (rows[:5], rows[5:])]
    assert max(begun for begun, _ in spans) < min(ended for _, ended in spans)


def test_user_components_of_every_kind_work_and_an_edited_method_is_trained_again(
    call: Call, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    toys = tmp_path / "toys.py"
    shutil.copy(TOYS, toys)
    file = sweep_file(
        imports=["toys.py"],
        scenario="toy_scenario",
        benchmark={"name": "toy_benchmark", "num_tasks": 3, "step": 9},
        net={"name": "toy_net", "num_outputs": 10},
        method={"name": "toy_method"},
        inference={"rule": "toy_rule", "objective": "toy_objective", "strict_images": 20},
    )
    code, out, err = call("sweep", file)
    assert code == 0, err
    assert "toy_scenario toy_rule toy_objective" in out
    assert len(trained(tmp_path / "runs")) == 3
    summary = next(tmp_path.glob("runs/sweeps/*/report/summary.csv")).read_text()
    accuracy = [line for line in summary.splitlines() if ",3,accuracy," in line]
    assert float(accuracy[0].split(",")[4]) > 0.5
    code, _, err = call("sweep", file, "--local")
    assert code == 0, err
    assert len(trained(tmp_path / "runs")) == 3
    toys.write_text(toys.read_text().replace("order[:500]", "order[:600]"))
    code, _, err = call("sweep", file, "--local")
    assert code == 0, err
    assert len(trained(tmp_path / "runs")) == 6
    code, out, err = call("evaluate", "small", "inference.rule=exhaustive", "inference.objective=entropy", "--local")
    assert code == 0, err
    assert "toy_scenario exhaustive entropy" in out
    assert len(trained(tmp_path / "runs")) == 6


def test_a_user_method_that_does_not_support_a_scenario_or_rule_is_refused(
    call: Call, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    shutil.copy(TOYS, tmp_path / "toys.py")
    file = sweep_file(imports=["toys.py"], method={"name": "toy_method"}, scenario="GNs")
    code, _, err = call("plan", file)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "cannot superpose its masks" in err
    code, _, err = call("plan", file, "scenario=GNu")
    assert code == 2
    assert "toy_method does not support scenario GNu; it supports GG, GNs, toy_scenario" in err


@pytest.mark.long
def test_a_killed_worker_and_a_killed_trial_process_are_replaced(
    launch: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    process = launch("sweep", sweep_file(training={"num_batches": 600}, benchmark=_tasks(8)))
    worker = wait_for(lambda: below(process.pid, "WorkerActor.run"))
    trial = wait_for(lambda: below(process.pid, "ImplicitFunc.train"))  # the coordinator runs in it
    os.kill(worker[0], signal.SIGKILL)
    time.sleep(0.5)
    os.kill(trial[0], signal.SIGKILL)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "8/8 shards" in out
    keys = [row["key"] for row in trained(tmp_path / "runs")]
    assert len(keys) == len(set(keys))
    assert len(artifacts(tmp_path / "runs")) == 8 + 4


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, marks=pytest.mark.long),
        signal.SIGUSR1,  # for which Ray Tune sets a handler of its own
    ],
)
def test_a_signal_commits_prints_the_resume_command_and_resume_completes(
    launch: Callable[..., Any], call: Call, sweep_file: Callable[..., Path], tmp_path: Path, number: signal.Signals
) -> None:
    process = launch("sweep", sweep_file(training={"num_batches": 600}, benchmark=_tasks(12)))
    wait_for(lambda: trained(tmp_path / "runs"))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    command = out.strip().splitlines()[-1].partition("Go on with: supsup ")[2].split()
    assert command[0] == "resume"
    before = {row["key"] for row in trained(tmp_path / "runs")}
    assert 1 <= len(before) < 12
    code, out, err = call("status", "--json")
    assert json.loads(out)[0]["state"] == "interrupted", err
    assert json.loads(out)[0]["shards_done"] == len(before)
    code, out, err = call(*command, "--local")
    assert code == 0, err
    assert "12/12 shards" in out
    after = [row["key"] for row in trained(tmp_path / "runs")]
    assert len(after) == len(set(after))
    # Each of the two workers may have stored a shard without reporting it. The resume finds it and does not train it.
    assert 12 - 2 <= len(after) <= 12
    assert len(artifacts(tmp_path / "runs")) == 12 + 5
    code, out, err = call("status")
    assert "done" in out.splitlines()[0]


def test_two_sweeps_at_once_train_a_shared_task_once(
    launch: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    """The two sweeps share one output and need the same masks. They differ in name and inference."""
    shared = {"training": {"num_batches": 400}, "benchmark": _tasks(6)}
    first = launch("sweep", sweep_file("a.yaml", name="a", **shared), "--local")
    second = launch("sweep", sweep_file("b.yaml", name="b", scenario="GNs", **shared), "--local")
    for process in (first, second):
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        assert "6/6 shards" in out
    keys = [row["key"] for row in trained(tmp_path / "runs")]
    assert len(keys) == len(set(keys)) == 6


LATE = """
import sys, threading, time
from pathlib import Path
from types import SimpleNamespace
import ray
from orchestrator.execution.ray_actors import ActorPool

class Worker:
    def __init__(self, settings, number):
        while number == 1 and not Path(settings.sign).exists():
            time.sleep(0.05)
    def run(self, job):
        time.sleep(90)

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=40)
settings = SimpleNamespace(num_workers=2, sign=sys.argv[1])
pool = ActorPool(settings, {"CPU": 1}, ray.remote(max_restarts=0)(Worker))
while pool.absent() != {1}:
    time.sleep(0.05)
pool.submit(0, SimpleNamespace(key="long"))
threading.Timer(1, Path(sys.argv[1]).touch).start()
began = time.monotonic()
print(pool.wait(80), pool.absent(), time.monotonic() - began < 60)
"""


def test_a_worker_that_starts_late_gets_a_job_while_the_other_worker_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    command = [sys.executable, "-c", LATE, str(tmp_path / "sign")]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[] set() True"


def _tasks(count: int) -> dict[str, Any]:
    return {"name": "permuted", "base": "digits", "num_tasks": count}
