"""Adapts the MLflow database of an output that was moved or copied. Does not import MLflow, which takes seconds."""

from __future__ import annotations

import contextlib
import sqlite3

from orchestrator.base.library_internals import move_mlflow_artifacts
from orchestrator.base.output_folder import MLflowFolder


def relocate(folder: MLflowFolder) -> None:
    """Updates the locations of artifacts in the MLflow database of an output that was moved or copied.

    MLflow stores absolute locations. Without this function, MLflow would read and write the files in the old place.
    Does nothing for an output that was not moved. The caller must hold the folder's lock.
    """
    home = folder.artifacts.as_uri()
    ending = f"/{folder.path.name}/{folder.artifacts.name}"  # a user's own experiments may have other places
    with contextlib.closing(sqlite3.connect(folder.database, timeout=30.0)) as db, db:
        found = db.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (old,) in found:
            if old is not None and old != home and old.startswith("file:") and old.endswith(ending):
                move_mlflow_artifacts(db, old, home)
