"""Writes a small sweep to MLflow, and reads its runs and points back."""

from __future__ import annotations

from typing import Any

import mlflow

from orchestrator.base.environment import describe
from orchestrator.records.group_state import GroupState
from orchestrator.sweeps.sweep import Sweep
from orchestrator.tracking.comparison.sweep_check import LedgerContent, check_sweep
from orchestrator.tracking.mlflow_address import tracking_uri_of
from orchestrator.tracking.mlflow_writer import Purpose, Tracker
from orchestrator.tracking.monitor import conclude
from tests.local_runs import ledgers

Points = dict[str, dict[str, list[tuple[int, float, int]]]]
"""Steps, values and times (Unix, ms) of every metric, by the uid of its run and the name of the metric."""

LOSS_STEPS = list(range(3, 91, 3))
"""The optimiser steps at which a group with three tasks of 30 batches reports its loss."""


_opened: list[Tracker] = []


def end_trackers() -> None:
    """Releases the locks that trackers hold, as the ends of their processes do."""
    while _opened:
        _opened.pop().close()


def track(sweep: Sweep, purpose: Purpose = "report") -> Tracker:
    """Returns a new tracker of a sweep, as a new process makes it after the end of all others."""
    end_trackers()
    _opened.append(Tracker(sweep, sweep.plan(), describe(sweep.imports_folder), purpose=purpose))
    return _opened[-1]


def project(sweep: Sweep, tracker: Tracker | None = None) -> None:
    """Writes all rows of the ledgers to MLflow, with a new tracker unless one is given."""
    (tracker or track(sweep)).project(ledgers(sweep))


def client(sweep: Sweep) -> Any:
    """Returns an MLflow client for the sweep's store."""
    return mlflow.MlflowClient(tracking_uri_of(sweep))


def runs(sweep: Sweep) -> list[Any]:
    """Returns all MLflow runs of the sweep's experiment."""
    experiment = client(sweep).get_experiment_by_name(sweep.config.name)
    return list(client(sweep).search_runs([experiment.experiment_id]))


def points(sweep: Sweep) -> Points:
    """Returns every point of every run. A duplicated point appears twice."""
    found: Points = {}
    for run in runs(sweep):
        uid = run.data.tags["supsup.uid"]
        found[uid] = {
            key: [(m.step, m.value, m.timestamp) for m in client(sweep).get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
    return found


def own_points(sweep: Sweep) -> Points:
    """Returns the points that this project writes, without those of MLflow's system metrics."""
    found = points(sweep)
    return {uid: {k: v for k, v in metrics.items() if not k.startswith("system/")} for uid, metrics in found.items()}


def run_of(sweep: Sweep, kind: str) -> Any:
    """Returns an MLflow run of a kind: the first by name."""
    found = [run for run in runs(sweep) if f"/{kind}/" in run.data.tags.get("supsup.uid", "")]
    return min(found, key=lambda run: run.info.run_name)


def repair(sweep: Sweep) -> None:
    """Writes the MLflow runs as `supsup fsck --mlflow --repair` does."""
    tracker = track(sweep, "repair")
    tracker.project(ledgers(sweep))
    tracker.tag_machines(states_of(sweep))
    conclude(tracker, sweep.plan(), states_of(sweep))
    tracker.close()


def states_of(sweep: Sweep) -> dict[str, GroupState]:
    """Returns the states of the training groups, by id."""
    return {group_id: GroupState().apply(rows) for group_id, rows in ledgers(sweep).items()}


def faults(sweep: Sweep) -> list[str]:
    """Returns the faults that `supsup fsck --mlflow` prints after the end of all trackers."""
    end_trackers()
    rows, states = ledgers(sweep), states_of(sweep)
    return check_sweep(sweep, sweep.plan(), LedgerContent(rows, states), lambda done, total: None).faults


def training_losses(sweep: Sweep) -> list[int]:
    """Returns the steps at which the sweep's training run has a loss, ascending. Duplicated steps appear twice."""
    loss = next(metrics["loss"] for uid, metrics in points(sweep).items() if "/training/" in uid)
    return sorted(step for step, _, _ in loss)
