"""The writer of one MLflow run: after any interruption, each point is written exactly once (idempotent writes)."""

from __future__ import annotations

from typing import Any

import mlflow
import pytest

from orchestrator.sweeps.sweep import Sweep
from orchestrator.tracking.mlflow_points import MetricPoint
from orchestrator.tracking.mlflow_run import MLflowRun
from tests.local_runs import run_sweep
from tests.tracking.projection import LOSS_STEPS, client, points, project, track, training_losses


def test_points_that_a_crash_left_unwritten_are_written_later(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer dies between two batches of points. The next writer writes the remaining points."""
    run_sweep(sweep)
    half = track(sweep)
    monkeypatch.setattr("orchestrator.tracking.mlflow_run.BATCH_SIZE", 7)
    real, calls = mlflow.MlflowClient.log_batch, []

    def dying(self: Any, *arguments: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(self, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "log_batch", dying)
        with pytest.raises(KeyboardInterrupt):
            project(sweep, half)
    assert 0 < len(training_losses(sweep)) < len(LOSS_STEPS)
    project(sweep)
    assert training_losses(sweep) == LOSS_STEPS
    found = points(sweep)
    assert all(len({step for step, _, _ in history}) == len(history) for m in found.values() for history in m.values())


def test_a_failed_write_is_repeated_by_the_same_writer(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    run_sweep(sweep)
    tracker = track(sweep)

    def locked(*arguments: Any, **named: Any) -> None:
        raise OSError("database is locked")

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "log_batch", locked)
        with pytest.raises(OSError, match="locked"):
            project(sweep, tracker)
    project(sweep, tracker)
    assert training_losses(sweep) == LOSS_STEPS


def test_only_a_corrected_value_is_written_again(sweep: Sweep) -> None:
    track(sweep)
    store = client(sweep)
    (found,) = (run for run in store.search_runs(["1"]) if run.data.tags["supsup.kind"] == "sweep")

    def written() -> list[float]:
        return [point.value for point in store.get_metric_history(found.info.run_id, "accuracy")]

    MLflowRun(store, store.get_run(found.info.run_id)).log([MetricPoint("accuracy", 1, 0.5, 1000)])
    for correct in (False, True, True):
        run = MLflowRun(store, store.get_run(found.info.run_id))
        run.log([MetricPoint("accuracy", 1, 0.75, 2000)] * 2, correct=correct)
        assert written() == ([0.5, 0.75] if correct else [0.5])
    assert store.get_run(found.info.run_id).data.metrics["accuracy"] == 0.75
