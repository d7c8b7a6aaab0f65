"""Creates the MLflow database of an output."""

from __future__ import annotations

import contextlib
import sqlite3
import time

import mlflow

from orchestrator.base.files import replace_durably
from orchestrator.base.library_internals import move_mlflow_artifacts
from orchestrator.base.output_folder import MLflowFolder
from orchestrator.tracking.mlflow_address import sqlite_uri


def create_database(folder: MLflowFolder) -> None:
    """Create MLflow's database atomically, if it does not exist.

    MLflow creates its tables in many steps, and cannot use a database in which some tables are missing. The database is
    therefore created under a temporary name and then renamed. MLflow's experiment "Default" gets its artifacts in the
    output instead of a folder `mlruns` in the current folder.
    """
    if folder.database.exists():
        return
    for left in folder.partial_databases():
        left.unlink()
    partial = folder.partial_database(time.time_ns())
    mlflow.MlflowClient(sqlite_uri(folder.path, partial.name)).search_experiments(max_results=1)
    with contextlib.closing(sqlite3.connect(partial)) as db, db:
        ((current,),) = db.execute("SELECT artifact_location FROM experiments").fetchall()  # of "Default"
        move_mlflow_artifacts(db, current, folder.artifacts.as_uri())
    replace_durably(partial, folder.database)
