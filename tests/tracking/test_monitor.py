"""The monitor of a running sweep: progress, log lines and MLflow points."""

from __future__ import annotations

import json
import logging
import time
from typing import Any, cast

import mlflow
import pytest

from orchestrator.base.environment import describe
from orchestrator.results.progress_line import ProgressLine
from orchestrator.results.report import tables
from orchestrator.results.status import SweepStatus
from orchestrator.sweeps.lookup import read_states
from orchestrator.sweeps.sweep import Sweep
from orchestrator.tracking.monitor import Monitor, conclude
from tests.local_runs import run_sweep
from tests.outputs import wait_for
from tests.tracking.projection import LOSS_STEPS, client, points, project, runs, track, training_losses


class Screen:
    """A fake progress line that records the statuses it should show."""

    def __init__(self) -> None:
        self.shown: list[SweepStatus] = []

    def update(self, status: SweepStatus) -> None:
        self.shown.append(status)


def monitor_of(sweep: Sweep, screen: Screen) -> Monitor:
    return Monitor(sweep, sweep.plan(), describe(sweep.imports_folder), cast("ProgressLine", screen))


def test_no_progress_is_shown_after_the_end_of_a_sweep(sweep: Sweep) -> None:
    run_sweep(sweep)
    screen = Screen()
    monitor = monitor_of(sweep, screen)
    monitor.tick()
    assert len(screen.shown) == 1
    monitor.finish()
    assert len(screen.shown) == 1
    assert points(sweep)


def test_runs_are_in_mlflow_after_the_first_tick(sweep: Sweep) -> None:
    monitor = monitor_of(sweep, Screen())
    monitor.tick()
    assert {run.info.status for run in runs(sweep)} == {"RUNNING"}
    assert len(runs(sweep)) == 4
    monitor.finish()


def test_rows_added_between_two_ticks_are_shown_logged_and_written_once(
    sweep: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    screen = Screen()
    monitor = monitor_of(sweep, screen)
    monitor.tick()
    with caplog.at_level(logging.INFO, "supsup"):
        run_sweep(sweep)
        monitor.tick()
        monitor.tick()
    assert [(status.shards_done, status.evaluations_done) for status in screen.shown] == [(0, 0), (3, 8), (3, 8)]
    assert [record.message for record in caplog.records].count("the training group ended: done") == 1
    assert training_losses(sweep) == LOSS_STEPS
    monitor.finish()
    monitor.close()
    written = points(sweep)
    project(sweep)
    assert points(sweep) == written
    assert {run.info.status for run in runs(sweep)} == {"FINISHED"}


@pytest.mark.parametrize("days", [0, 1])
def test_the_events_of_an_earlier_launch_are_not_logged_again(
    sweep: Sweep, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """days: by how much the clock is set back after the earlier launch."""
    true_time = time.time_ns
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: true_time() + days * 86400 * 10**9)
        run_sweep(sweep)
    time.sleep(0.01)  # rows and launches need different times in milliseconds
    with caplog.at_level(logging.INFO, "supsup"):
        status = monitor_of(sweep, Screen()).status()
    assert status.shards_done == 3
    assert caplog.records == []


def test_an_mlflow_error_is_logged_once_and_the_missing_points_are_written_later(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("orchestrator.tracking.monitor.SECONDS", 0.05)
    run_sweep(sweep)
    monitor = monitor_of(sweep, Screen())
    attempts: list[int] = []

    def away(*_: Any, **__: Any) -> None:
        attempts.append(1)
        raise OSError("the server is away")

    def warnings() -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        return [message for message in found if "MLflow" in message]

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "log_batch", away)
        monitor.start()
        wait_for(lambda: attempts[2:])
    wait_for(lambda: warnings()[1:])
    monitor.stop()
    first, second = warnings()
    assert first.endswith("(the server is away); retrying")
    assert "are up to date" in second
    monitor.finish()
    assert training_losses(sweep) == LOSS_STEPS


def test_an_mlflow_error_that_lasts_until_the_end_is_raised(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    run_sweep(sweep)

    def away(*_: Any, **__: Any) -> None:
        raise OSError("the store is away")

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", away)
    with pytest.raises(OSError, match="the store is away"):
        monitor_of(sweep, Screen()).finish()


def test_the_task_and_confusion_tables_of_a_run_are_logged_once(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{sweep.output.mlflow.database}")  # load_table uses it
    run_sweep(sweep)
    groups, states = sweep.plan(), read_states(sweep.folder, {})
    for _ in range(2):  # a report can be written again at any time
        tracker = track(sweep)
        project(sweep, tracker)
        conclude(tracker, groups, states)
    wanted = tables.tasks_table(groups, states)
    for run in runs(sweep):
        if run.data.tags["supsup.kind"] != "evaluation":
            continue
        names = [artifact.path for artifact in client(sweep).list_artifacts(run.info.run_id, "tables")]
        inferred = run.data.params["scenario"] == "GNu"
        assert names == ["tables/confusion.json"] * inferred + ["tables/tasks.json"]
        logged = client(sweep).load_table(run.info.experiment_id, "tables/tasks.json", [run.info.run_id])
        mine = wanted[(wanted["num_learned"] == 3) & wanted["run"].str.startswith(run.data.params["scenario"])]
        assert logged["accuracy"].tolist() == pytest.approx(mine["accuracy"].tolist(), abs=1e-9)  # ten digits in JSON
        shown = json.loads(run.data.tags["mlflow.loggedArtifacts"])  # MLflow's pages find tables by this tag
        assert sorted(item["path"] for item in shown if item["type"] == "table") == names
