"""An MLflow server that fails: training continues, and every missing point is written exactly once after its return."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tests.outputs import points_of, scientific_points, trained, wait_for

Call = Callable[..., tuple[int, str, str]]

TASKS, OUTAGE_TASKS = 40, 15


class Server:
    """An MLflow server on loopback, with a database that survives a restart of the server."""

    def __init__(self, home: Path, database: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}"
        self._home = home
        self._database = database
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port), "--workers",
            "1", "--backend-store-uri", f"sqlite:///{self._database}",
            "--artifacts-destination", (self._home / "artifacts").as_uri(),
        ]  # fmt: skip
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, cwd=self._home, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self._healthy)

    def _healthy(self) -> list[bool]:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=2):
                return [True]
        except OSError:
            return []

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path, give_database: Callable[[Path], None]) -> Iterator[Server]:
    home = tmp_path / "server"
    give_database(home)
    found = Server(home, home / "mlflow" / "mlflow.db")
    found.start()
    yield found
    found.kill()


@pytest.mark.long
def test_a_server_that_is_killed_and_restarted_gets_every_point_exactly_once(
    server: Server,
    launch: Callable[..., Any],
    call: Callable[..., Any],
    sweep_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = sweep_file(
        grid={"scenario": ["GG", "GNu"]},
        training={"num_batches": 1500},
        benchmark={"name": "permuted", "base": "digits", "num_tasks": TASKS},
        evaluation={"at": [2, 4, TASKS]},
    )
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1")
    process = launch("sweep", file, "--local", f"tracking={server.address}", "output=served")
    client = mlflow.MlflowClient(server.address)

    def losses() -> list[Any]:
        experiment = client.get_experiment_by_name("small")
        runs = client.search_runs([experiment.experiment_id], "metrics.loss > 0") if experiment else []
        return list(runs)

    wait_for(losses)
    server.kill()
    enough = len(trained(tmp_path / "served")) + OUTAGE_TASKS
    wait_for(lambda: trained(tmp_path / "served")[enough:])  # training does not wait for MLflow
    server.start()
    assert len(trained(tmp_path / "served")) < TASKS, "the sweep ended before the server was restarted"
    back = 1000 * time.time()
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "the runs cannot be written to MLflow at present" in err
    assert f"MLflow:  {server.address}\n" in out

    code, _, err = call("sweep", file, "--local", "output=undisturbed")
    assert code == 0, err
    assert points_of(client, "small") == scientific_points(tmp_path / "undisturbed", "small")
    runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    (sweep,) = (run for run in runs if run.data.tags["supsup.kind"] == "sweep")
    measured = client.get_metric_history(sweep.info.run_id, "system/cpu_utilization_percentage")
    assert min(point.timestamp for point in measured) < back < max(point.timestamp for point in measured)
    names = {artifact.path for artifact in client.list_artifacts(sweep.info.run_id, "report")}
    assert {"report/report.html", "report/final.csv"} <= names

    code, out, err = call("fsck", "--mlflow", "output=served")
    assert (code, "found 0 faults" in out) == (0, True), err
    training = next(run for run in runs if run.data.tags["supsup.kind"] == "training")
    client.log_metric(training.info.run_id, "loss", 0.125, step=1)
    code, out, err = call("fsck", "--mlflow", "--repair", "output=served")
    assert (code, "has 1 metric point that the ledger lacks" in out) == (0, True), err
    assert points_of(client, "small") == scientific_points(tmp_path / "undisturbed", "small")


def test_a_server_that_never_answers_affects_no_result(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.tracking.monitor.PATIENCE_SECONDS", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        found = supsup("sweep", sweep_file(), "--local", f"tracking={address}")
    assert found.code == 1
    assert "when MLflow works again, `supsup report small-" in found.err
    assert list(tmp_path.glob("runs/sweeps/*/report/report.html"))
    assert len(trained(tmp_path / "runs")) == 3
    again = supsup("report")
    assert again.code == 2
    assert "report: " in again.out
    assert "could not be written to MLflow" in again.err
    refused = supsup("export", "small")
    assert refused.code == 2
    assert "could not be written to MLflow" in refused.err
