"""An MLflow run that is written anew keeps what users added, and a crash at any moment leaves one valid run."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import LoggedModelOutput, ViewType

from orchestrator.sweeps.sweep import Sweep
from tests.tracking.projection import client, faults, own_points, points, repair, run_of, runs

CHANGES = ("create_run", "log_batch", "log_dict", "log_inputs", "log_outputs", "log_artifacts", "set_tag", "delete_run")
"""The calls of MLflow that write. A crash at each of them must do no harm."""


def contradict(sweep: Sweep, kind: str) -> str:
    """Adds a point that no ledger has to an MLflow run, and returns the id of the run."""
    run_id: str = run_of(sweep, kind).info.run_id
    client(sweep).log_metric(run_id, "accuracy", 0.125, 4_000_000_000_000, 77)
    return run_id


def add_own_things(sweep: Sweep, run_id: str, folder: Path) -> str:
    """Adds to an MLflow run what a user may add. Returns the id of a model."""
    store = client(sweep)
    store.log_metric(run_id, "mine", 1.5, 1000, 7)
    store.log_batch(run_id, params=[mlflow.entities.Param(f"p{number}", "x") for number in range(99)])
    store.log_param(run_id, "last", "y")
    store.set_tag(run_id, "mlflow.note.content", "look here")
    (folder / "note.txt").write_text("text")
    store.log_artifact(run_id, str(folder / "note.txt"), "mine")
    model_id: str = store.create_logged_model(run_of(sweep, "sweep").info.experiment_id, source_run_id=run_id).model_id
    store.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])
    return model_id


@pytest.mark.parametrize("kind", ["sweep", "training", "evaluation"])
def test_a_run_that_is_written_anew_keeps_what_users_and_mlflow_added(
    projected: Sweep, tmp_path: Path, kind: str
) -> None:
    wanted = own_points(projected)
    store = client(projected)
    before = contradict(projected, kind)
    model = add_own_things(projected, before, tmp_path)
    old = store.get_run(before)
    artifacts = {path.name for path in Path(old.info.artifact_uri.removeprefix("file://")).rglob("*")}
    repair(projected)
    new = store.get_run(run_of(projected, kind).info.run_id)
    assert new.info.run_id != before
    assert (new.info.run_name, new.info.start_time) == (old.info.run_name, old.info.start_time)
    assert new.data.params == old.data.params
    tags = {**old.data.tags, "supsup.replaces": before}
    tags |= {tag: new.data.tags[tag] for tag in ("mlflow.parentRunId", "supsup.writer") if tag in tags}
    assert new.data.tags == tags
    assert [output.model_id for output in new.outputs.model_outputs] == [model]
    found = {path.name for path in Path(new.info.artifact_uri.removeprefix("file://")).rglob("*")}
    assert found == artifacts > {"config.yaml", "note.txt"} or (kind, found) == ("sweep", artifacts)
    assert points(projected)[new.data.tags["supsup.uid"]]["mine"] == [(7, 1.5, 1000)]
    system = "system/cpu_utilization_percentage"
    assert {uid for uid, metrics in points(projected).items() if system in metrics} == {
        run_of(projected, "sweep").data.tags["supsup.uid"]
    }
    left = own_points(projected)
    left[new.data.tags["supsup.uid"]].pop("mine")
    assert left == wanted
    assert faults(projected) == []
    assert store.get_run(before).info.lifecycle_stage == "deleted"
    children = [run for run in runs(projected) if run.data.tags["supsup.kind"] != "sweep"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {run_of(projected, "sweep").info.run_id}


def test_a_crash_during_a_replacement_leaves_one_valid_run_with_everything(
    projected: Sweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = add_own_things(projected, run_of(projected, "evaluation").info.run_id, tmp_path)
    wanted = own_points(projected)
    number_of_crashes = 0
    for moment in itertools.count(1):
        contradict(projected, "evaluation")
        calls: list[str] = []

        def crash_at(name: str, moment: int, calls: list[str]) -> Any:
            real = getattr(mlflow.MlflowClient, name)

            def call(*arguments: Any, **named: Any) -> Any:
                calls.append(name)
                if len(calls) == moment:
                    raise KeyboardInterrupt
                return real(*arguments, **named)

            return call

        with monkeypatch.context() as patched:
            for name in CHANGES:
                patched.setattr(mlflow.MlflowClient, name, crash_at(name, moment, calls))
            try:
                repair(projected)
            except KeyboardInterrupt:
                number_of_crashes += 1
        uids = [run.data.tags.get("supsup.uid") for run in runs(projected)]
        if "delete_run" in calls[:-1]:
            break  # the replacement was complete
        assert set(wanted) <= set(uids), f"no valid run after a crash in {calls[-1]}"
        repair(projected)
        assert faults(projected) == [], f"after a crash in {calls[-1]}"
        assert own_points(projected) == wanted
        run = client(projected).get_run(run_of(projected, "evaluation").info.run_id)
        assert run.data.tags["mlflow.note.content"] == "look here"
        assert run.data.params["last"] == "y"
        assert [output.model_id for output in run.outputs.model_outputs] == [model]
        assert Path(run.info.artifact_uri.removeprefix("file://"), "mine", "note.txt").exists()
    assert {"create_run", "log_artifacts", "set_tag", "delete_run"} <= set(calls)
    assert number_of_crashes >= 8
    experiment = run_of(projected, "sweep").info.experiment_id
    everything = client(projected).search_runs([experiment], run_view_type=ViewType.ALL)
    assert len([run for run in everything if run.info.lifecycle_stage == "active"]) == len(wanted)


def test_a_replaced_run_that_a_user_restores_does_not_become_valid_again(projected: Sweep) -> None:
    before = contradict(projected, "training")
    repair(projected)
    client(projected).restore_run(before)
    with closing(sqlite3.connect(projected.output.mlflow.database)) as db, db:
        db.execute("UPDATE runs SET start_time = 1 WHERE run_uuid = ?", (before,))
    assert [fault.partition("' ")[2] for fault in faults(projected)] == ["exists 2 times"]
    repair(projected)
    assert faults(projected) == []
    assert run_of(projected, "training").info.run_id != before


def test_artifacts_that_cannot_be_read_do_not_prevent_a_replacement(
    projected: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = own_points(projected)
    run = client(projected).get_run(contradict(projected, "evaluation"))
    (Path(run.info.artifact_uri.removeprefix("file://")) / "dead").symlink_to("nowhere")
    repair(projected)
    assert "cannot be copied" in caplog.text
    assert run.info.run_id in caplog.text
    assert own_points(projected) == wanted
    assert faults(projected) == []
