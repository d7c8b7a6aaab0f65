"""Checks the undocumented behaviour of Ray and MLflow that this project relies on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from ray._private.utils import check_version_info
from ray.core.generated import autoscaler_pb2
from ray.job_submission import JobSubmissionClient

from orchestrator.base.library_internals import (
    RAY_HAS_NO_AGENT,
    RayAutoscaling,
    RayDeath,
    RayVersions,
    lacks_memory,
    mlflow_monitor_is_alive,
    ray_autoscaling,
    ray_death_of,
    ray_package_hash,
    ray_upload_limit,
    ray_upload_rules,
    ray_version_of,
    ray_versions_in,
)
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


def test_rays_error_contains_the_versions_of_both_sides() -> None:
    with pytest.raises(RuntimeError) as raised:
        check_version_info({"ray_version": "2.1.0", "python_version": "3.8.1"}, "node 10.0.0.1")
    python = ".".join(map(str, sys.version_info[:3]))
    assert ray_versions_in(raised.value) == RayVersions("2.1.0", "3.8.1", ray.__version__, python)
    assert ray_versions_in(RuntimeError("another error")) is None


def test_the_autoscaler_says_what_starts_what_failed_and_what_can_never_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is Ray's. tests/chaos/test_room.py gets it from a real autoscaler."""
    reply = autoscaler_pb2.GetClusterStatusReply()
    state = reply.autoscaling_state
    state.pending_instance_requests.add(ray_node_type_name="gpu", count=2)
    state.pending_instances.add(ray_node_type_name="gpu")
    state.pending_instances.add(ray_node_type_name="cpu")
    state.failed_instance_requests.add(ray_node_type_name="spot", reason="no capacity")
    state.infeasible_gang_resource_requests.add().requests.add().resources_bundle["CPU"] = 8.0

    class Client:
        def __init__(self, address: str) -> None:
            assert address == "10.0.0.1:6379"

        def get_cluster_status(self, timeout_s: float) -> bytes:
            return bytes(reply.SerializeToString())

    monkeypatch.setattr("ray._raylet.GcsClient", Client)
    found = ray_autoscaling("10.0.0.1:6379", 1.0)
    assert found == RayAutoscaling({"gpu": 3, "cpu": 1}, {"spot": "no capacity"}, ([{"CPU": 8.0}],))


def test_a_folder_is_uploaded_by_the_rules_of_its_ignore_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/cluster/test_upload.py compares all rules with Ray's own package."""
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / ".rayignore").write_text("*.bin\n")

    def left_out(name: str, *excludes: str) -> bool:
        return any(rule(tmp_path / name) for rule in ray_upload_rules(tmp_path, excludes))

    assert left_out("a.log")
    assert left_out("a.bin")
    assert not left_out("a.py")
    assert left_out("a.py", "*.py")
    assert left_out(".git", "*.py")
    monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")
    assert not left_out("a.log")
    assert ray_upload_limit() == 100 * 2**20


def test_the_client_of_jobs_knows_the_version_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    class Response:
        status_code = 200
        text = ""

        def json(self) -> dict[str, str]:
            return {"version": "4", "ray_version": "2.1.0"}

        def raise_for_status(self) -> None:
            pass

    def request(*args: Any, **kwargs: Any) -> Response:
        return Response()

    monkeypatch.setattr("requests.request", request)
    assert ray_version_of(JobSubmissionClient("http://127.0.0.1:8265")) == "2.1.0"
    server = Path(ray.__file__).parent / "dashboard" / "modules" / "job" / "job_head.py"
    assert f'"{RAY_HAS_NO_AGENT}' in server.read_text()


def test_a_tensor_that_does_not_fit_into_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as full:
        torch.empty(1 << 50)
    assert lacks_memory(full.value)
    with pytest.raises(RuntimeError) as other:
        torch.empty(-1)
    assert not lacks_memory(other.value)
