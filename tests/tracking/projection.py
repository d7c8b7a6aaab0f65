"""A small sweep and what MLflow holds of it."""

from __future__ import annotations

from typing import Any

import mlflow

from orchestrator.base.environment import describe
from orchestrator.sweeps.sweep import Sweep
from orchestrator.tracking.mlflow_address import tracking_uri_of
from orchestrator.tracking.mlflow_writer import Tracker
from tests.local_runs import ledgers

Points = dict[str, dict[str, list[tuple[int, float, int]]]]
"""Steps, values and times (Unix, ms) of every metric, by the uid of its run."""

LOSS_STEPS = list(range(3, 91, 3))
"""The steps at which a group of three tasks of 30 batches reports its loss."""


def track(sweep: Sweep) -> Tracker:
    """A tracker of a sweep, as a process that begins makes one."""
    return Tracker(sweep, sweep.plan(), describe(sweep.imports_folder))


def project(sweep: Sweep, tracker: Tracker | None = None) -> None:
    """Write all rows of the ledgers to MLflow, with a new tracker unless one is given."""
    (tracker or track(sweep)).project(ledgers(sweep))


def client(sweep: Sweep) -> Any:
    """A client of the sweep's MLflow store."""
    return mlflow.MlflowClient(tracking_uri_of(sweep))


def runs(sweep: Sweep) -> list[Any]:
    """All runs of the sweep's experiment."""
    experiment = client(sweep).get_experiment_by_name(sweep.config.name)
    return list(client(sweep).search_runs([experiment.experiment_id]))


def points(sweep: Sweep) -> Points:
    """Every point of every run; a doubled point shows twice."""
    found: Points = {}
    for run in runs(sweep):
        uid = run.data.tags["supsup.uid"]
        found[uid] = {
            key: [(m.step, m.value, m.timestamp) for m in client(sweep).get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
    return found


def training_losses(sweep: Sweep) -> list[int]:
    """The steps at which the sweep's training run has a loss, ascending; doubled ones show twice."""
    loss = next(metrics["loss"] for uid, metrics in points(sweep).items() if "/training/" in uid)
    return sorted(step for step, _, _ in loss)
