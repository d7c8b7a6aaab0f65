"""Checks the undocumented behaviour of Ray and MLflow that this project relies on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from orchestrator.base.library_internals import RayDeath, mlflow_monitor_is_alive, ray_death_of, ray_package_hash
from tests.outputs import wait_for

EXCLUDES = ["runs", "*.egg-info"]


def test_rays_package_hash_covers_exactly_the_files_that_are_sent(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / "nets.py").write_text("WIDTH = 64\n")
    (tmp_path / "runs").mkdir()
    before = ray_package_hash(tmp_path, EXCLUDES)
    assert int(before, 16)
    assert len(before) >= 16
    for ignored in ("train.log", "runs/ledger", "runs/nets.py"):
        (tmp_path / ignored).write_text("not sent")
        assert ray_package_hash(tmp_path, EXCLUDES) == before
    (tmp_path / "nets.py").write_text("WIDTH = 32\n")
    assert ray_package_hash(tmp_path, EXCLUDES) != before
    (tmp_path / "nets.py").write_text("WIDTH = 64\n")
    assert ray_package_hash(tmp_path, EXCLUDES) == before
    assert ray_package_hash(tmp_path, []) != before


def test_ray_reports_why_an_actor_died() -> None:
    """The causes: its process was killed, its node was killed, or the memory monitor killed it."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    found = subprocess.run(
        [sys.executable, "-m", "tests.base.dying_actors"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    (line,) = [line for line in found.stdout.splitlines() if line.startswith("{")] or [found.stderr]
    deaths = json.loads(line)
    assert {cause: flags for cause, (_, *flags) in deaths.items()} == {
        "killed": [False, False], "node died": [True, False], "out of memory": [False, True],
    }  # fmt: skip
    assert "worker process has died" in deaths["killed"][0]
    assert "node" in deaths["node died"][0]
    assert "running low on memory" in deaths["out of memory"][0]
    assert all(len(reason.splitlines()) == 1 for reason, *_ in deaths.values())


class ReportedError(Exception):
    """An error whose text has the form of Ray's errors."""

    preempted = False


@pytest.mark.parametrize(
    ("text", "death"),
    [
        ("", RayDeath("", False, False)),
        (
            "The actor died.\n\tclass_name: A\n\tpid: 3\nIts owner has died.",
            RayDeath("Its owner has died.", False, False),
        ),
        (
            "Died because its node has died. Node Id: 5\n\tthe node was drained",
            RayDeath("the node was drained", True, False),
        ),
        (
            "Died because its node has died. Node Id: 5\n\tThe actor never ran",
            RayDeath("Died because its node has died. Node Id: 5", True, False),
        ),
        (
            "Killed as the node is running low on memory\nmore",
            RayDeath("Killed as the node is running low on memory", False, True),
        ),
    ],
)
def test_the_reason_of_a_death_is_taken_from_the_most_specific_line_of_rays_error(text: str, death: RayDeath) -> None:
    assert ray_death_of(ReportedError(text)) == death


def test_mlflows_system_metrics_monitor_ends_if_its_server_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monitor = SystemMetricsMonitor("no-run", sampling_interval=0.5, tracking_uri="http://127.0.0.1:9")
    assert not mlflow_monitor_is_alive(monitor)
    monitor.start()
    assert mlflow_monitor_is_alive(monitor)
    wait_for(lambda: [] if mlflow_monitor_is_alive(monitor) else ["ended"], seconds=60)
    monitor.finish()
    assert not mlflow_monitor_is_alive(monitor)
