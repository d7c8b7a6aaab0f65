"""`supsup report` and `supsup resume` write the same MLflow runs at the same time, in two processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from orchestrator.base.output_folder import OutputFolder
from orchestrator.tracking.mlflow_address import tracking_uri
from tests.outputs import run_statuses, scientific_points, wait_for

Call = Callable[..., tuple[int, str, str]]

ROUNDS = 25

READY = """
import pathlib, sys, time
import orchestrator.cli.verbs.look.report, orchestrator.cli.verbs.run.resume
import orchestrator.tracking.mlflow_writer, orchestrator.results.report.tables
from orchestrator.cli.main import main
pathlib.Path(sys.argv.pop(1)).touch()
while not pathlib.Path("go").exists():
    time.sleep(0.001)
main()
"""
"""A program that imports everything first, so that both processes reach MLflow at nearly the same time."""


def started(folder: Path, name: str, *words: str) -> subprocess.Popen[str]:
    """Starts a command that waits until the file `go` exists."""
    return subprocess.Popen(
        [sys.executable, "-c", READY, f"ready-{name}", *words], cwd=folder, text=True,
        env={**os.environ, "HOME": str(folder)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("is_new", [True, False])
def test_two_processes_create_no_mlflow_run_twice_and_lose_none(
    call: Call, sweep_file: Callable[..., Path], give_database: Callable[[Path], None], tmp_path: Path, is_new: bool
) -> None:
    """is_new: whether MLflow has no run of the sweep yet."""
    file = sweep_file(grid={"scenario": ["GG", "GNu"]}, seeds=[0, 1])
    assert call("sweep", file, "--local", "output=wanted")[0] == 0
    wanted = scientific_points(tmp_path / "wanted", "small")
    for number in range(ROUNDS):
        folder = tmp_path / f"round{number}"
        output = folder / "runs"
        shutil.copytree(tmp_path / "wanted", output)
        if is_new:
            shutil.rmtree(output / "mlflow")
            give_database(output)
        processes = [
            started(folder, "resume", "resume", "--local"),
            *(started(folder, f"report{index}", "report") for index in range(2)),
        ]
        wait_for(lambda folder=folder: len(list(folder.glob("ready-*"))) == 3 and [True])  # type: ignore[misc]
        (folder / "go").touch()
        for process in processes:
            out, err = process.communicate(timeout=200)
            assert process.returncode == 0, f"{out}\n{err}"
            assert "Traceback" not in err
        client: Any = mlflow.MlflowClient(tracking_uri(OutputFolder(output).mlflow))
        experiment = client.get_experiment_by_name("small").experiment_id
        uids = Counter(run.data.tags["supsup.uid"] for run in client.search_runs([experiment]))
        assert set(uids.values()) == {1}
        assert scientific_points(output, "small") == wanted
        assert run_statuses(output, "small") == {"FINISHED"}
        shutil.rmtree(folder)
