"""Fixtures with a small sweep: one that has not run yet, and one whose results are in MLflow."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from orchestrator.sweeps.sweep import Sweep, open_sweep
from orchestrator.tracking.moved_output import relocate
from tests.conftest import SMALL
from tests.local_runs import run_sweep
from tests.tracking.projection import client, repair, run_of


@pytest.fixture
def empty(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    """A sweep whose output has no MLflow database yet."""
    monkeypatch.chdir(tmp_path)
    return open_sweep(sweep_file(grid={"scenario": ["GG", "GNu"]}), [])


@pytest.fixture
def sweep(empty: Sweep, give_database: Callable[[Path], None]) -> Sweep:
    """A sweep whose output has an MLflow database."""
    give_database(empty.output.path)
    return empty


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, give_database: Callable[[Path], None]) -> Sweep:
    """A finished sweep whose MLflow runs agree with its ledger."""
    home = tmp_path_factory.mktemp("finished")
    file = home / "small.yaml"
    file.write_text(yaml.safe_dump({**SMALL, "grid": {"scenario": ["GG", "GNu"]}, "output": str(home / "runs")}))
    sweep = open_sweep(file, [])
    give_database(sweep.output.path)
    run_sweep(sweep)
    repair(sweep)
    client(sweep).log_metric(run_of(sweep, "sweep").info.run_id, "system/cpu_utilization_percentage", 7.0, step=3)
    return sweep


@pytest.fixture
def projected(finished: Sweep, tmp_path: Path) -> Sweep:
    """A copy of the finished sweep, with its MLflow database and artifacts."""
    shutil.copytree(finished.output.path, tmp_path / "runs")
    copy = replace(finished, config=replace(finished.config, output=str(tmp_path / "runs")))
    relocate(copy.output.mlflow)
    _artifact_repos_cache.clear()  # MLflow remembers, for the whole process, where each run has its artifacts
    return copy
