"""Writes an MLflow run anew, because MLflow cannot delete single points of a run."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from mlflow.entities import LoggedModelOutput, Param
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException

from orchestrator.base.wording import first_line
from orchestrator.tracking.mlflow_points import is_own_metric
from orchestrator.tracking.mlflow_run import DESCRIBED, log_points, read_points
from orchestrator.tracking.mlflow_store import REPLACES, OpenStore
from orchestrator.tracking.wanted_runs import UID

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("supsup")

PARAMS_PER_BATCH = 100
"""The maximum number of params in one log_batch call that MLflow accepts."""


def replace_run(store: OpenStore, run_id: str, own_params: Collection[str]) -> StoredRun:
    """Creates a new MLflow run in the place of an existing one, marks the existing one as deleted, and returns the new.

    The new run has the name, start time, tags, artifacts and models of the existing one, and the metrics and params
    that users or MLflow added. The new run has no points and no params of this project yet. own_params: the names of
    this project's params. MLflow keeps the deleted run.

    A crash at any moment leaves exactly one valid run. The new run becomes valid when it gets its tag `supsup.uid`,
    which is the last step before the deletion (see `find_runs`).
    """
    client = store.client
    old = client.get_run(run_id)
    tags = {key: value for key, value in old.data.tags.items() if key not in (UID, DESCRIBED)}
    new = client.create_run(
        store.experiment_id, old.info.start_time, {**tags, REPLACES: run_id}, old.info.run_name
    ).info.run_id
    for name in old.data.metrics:
        if not is_own_metric(name):
            log_points(client, new, read_points(client, run_id, name))
    foreign = [Param(key, value) for key, value in old.data.params.items() if key not in own_params]
    for start in range(0, len(foreign), PARAMS_PER_BATCH):
        client.log_batch(new, params=foreign[start : start + PARAMS_PER_BATCH])
    if old.outputs is not None and old.outputs.model_outputs:
        models = [LoggedModelOutput(model.model_id, model.step) for model in old.outputs.model_outputs]
        client.log_outputs(new, models)
    _copy_artifacts(client, old, new)
    client.set_tag(new, UID, old.data.tags[UID])
    client.delete_run(run_id)
    return client.get_run(new)


def _copy_artifacts(client: MlflowClient, old: Any, new: str) -> None:
    """Copies the artifacts of a run. If reading fails, logs a warning only: this project's artifacts are written
    again."""
    with tempfile.TemporaryDirectory(prefix="supsup-") as scratch:
        try:
            client.download_artifacts(old.info.run_id, "", scratch)
        except (MlflowException, OSError) as error:
            log.warning(
                "the artifacts of the MLflow run %s cannot be copied to the run %s, which replaces it (%s); the "
                "artifacts stay in %s",
                old.info.run_id, new, first_line(error), old.info.artifact_uri,
            )  # fmt: skip
            return
        client.log_artifacts(new, scratch)
