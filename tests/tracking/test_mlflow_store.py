"""The MLflow database of an output is complete or absent."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import mlflow
import pytest

from orchestrator.base.output_folder import MLflowFolder
from orchestrator.sweeps.sweep import Sweep
from orchestrator.tracking.mlflow_address import tracking_uri
from orchestrator.tracking.mlflow_store import create_database
from orchestrator.tracking.moved_output import relocate
from tests.local_runs import run_sweep
from tests.tracking.projection import points, project, track


def test_after_a_crash_during_the_creation_of_the_database_it_is_created_again(
    empty: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow cannot continue with partly created tables."""
    run_sweep(empty)
    folder = empty.output.mlflow

    def half_made(self: object, **_: object) -> None:
        folder.partial_database(1).write_bytes(b"half made")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mlflow.MlflowClient.search_experiments", half_made)
        with pytest.raises(KeyboardInterrupt):
            track(empty)
    assert not folder.database.exists()
    project(empty)
    assert points(empty)
    assert not list(folder.partial_databases())


def test_an_existing_database_is_not_changed(tmp_path: Path) -> None:
    folder = MLflowFolder(tmp_path)
    with contextlib.closing(sqlite3.connect(folder.database)) as db:
        db.execute("CREATE TABLE mine (value)")
    before = folder.database.read_bytes()
    create_database(folder)
    assert folder.database.read_bytes() == before


def test_the_default_experiment_of_mlflow_has_its_artifacts_in_the_output(tmp_path: Path) -> None:
    folder, moved = MLflowFolder(tmp_path / "runs" / "mlflow"), MLflowFolder(tmp_path / "moved" / "mlflow")
    folder.path.mkdir(parents=True)
    create_database(folder)
    assert _default_location(folder) == folder.artifacts.as_uri()
    folder.path.parent.rename(moved.path.parent)
    relocate(moved)
    assert _default_location(moved) == moved.artifacts.as_uri()
    assert str(tmp_path / "runs").encode() not in moved.database.read_bytes()


def _default_location(folder: MLflowFolder) -> str:
    return str(mlflow.MlflowClient(tracking_uri(folder)).get_experiment("0").artifact_location)


def test_a_database_is_created_in_a_folder_whose_name_an_address_cannot_contain(tmp_path: Path) -> None:
    folder = MLflowFolder(tmp_path / "what? C# 50%25" / "mlflow")
    folder.path.mkdir(parents=True)
    create_database(folder)
    assert [path.name for path in folder.path.iterdir()] == [folder.database.name]
    assert [path.name for path in tmp_path.iterdir()] == ["what? C# 50%25"]
