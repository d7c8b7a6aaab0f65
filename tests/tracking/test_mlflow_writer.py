"""MLflow as a projection of the ledgers: complete, without duplicate points, and with runs for MLflow's pages."""

from __future__ import annotations

import importlib.metadata
import re
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.base.environment import describe
from orchestrator.base.output_folder import OutputFolder
from orchestrator.execution.launch import launch, take_stock
from orchestrator.records.group_state import GroupState, LaunchStatus
from orchestrator.records.machine_kind import Machines
from orchestrator.records.rows import AnyRow, PointCompleted, Row, ShardTrained, TaskEvaluated
from orchestrator.results.report import tables
from orchestrator.sweeps.lookup import read_states
from orchestrator.sweeps.sweep import Sweep, open_sweep
from orchestrator.tracking.moved_output import relocate
from orchestrator.tracking.wanted_runs import machine_tags
from supsup_core.evaluation.counts import ProtocolCounts
from tests.conftest import PROGRAM
from tests.local_runs import ledgers, run_sweep
from tests.records.samples import EVALUATED, ONE_KIND, OTHER_KIND
from tests.tracking.projection import client, faults, own_points, points, project, repair, runs, track


def test_every_row_of_the_ledger_is_one_point_with_its_time(sweep: Sweep) -> None:
    run_sweep(sweep)
    project(sweep)
    (group,) = sweep.plan()
    rows = ledgers(sweep)[group.group_id]
    found = points(sweep)
    training = found[f"{sweep.sweep_id}/training/{group.group_id}"]
    trained = [(row.event.facts, row.time_ms) for row in rows if isinstance(row.event, ShardTrained)]
    assert set(training["task_accuracy"]) == {(facts.task, facts.accuracy, time_ms) for facts, time_ms in trained}
    assert sorted(step for step, _, _ in training["loss"]) == list(range(3, 91, 3))
    assert len(training["images_per_second"]) == 3
    for run in group.runs:
        wanted = {
            (row.event.num_learned, row.event.metrics["accuracy"], row.time_ms)
            for row in rows
            if isinstance(row.event, PointCompleted) and row.event.run_id == run.run_id
        }
        assert set(found[f"{sweep.sweep_id}/evaluation/{run.run_id}"]["accuracy"]) == wanted
        assert len(wanted) == 2


def test_projecting_the_ledgers_again_adds_no_point(sweep: Sweep) -> None:
    run_sweep(sweep)
    first = track(sweep)
    project(sweep, first)
    wanted = points(sweep)
    project(sweep, first)
    project(sweep)
    track(sweep).finish({})
    project(sweep)
    assert points(sweep) == wanted


def test_rows_may_be_projected_in_several_parts(sweep: Sweep) -> None:
    run_sweep(sweep)
    whole = ledgers(sweep)
    tracker = track(sweep)
    for length in range(1, 1 + max(map(len, whole.values()))):
        tracker.project({group_id: rows[length - 1 : length] for group_id, rows in whole.items()})
    parts = points(sweep)
    project(sweep)
    assert points(sweep) == parts


def test_evaluations_by_another_program_version_are_a_separate_run(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored masks are used again. Results of an earlier version are neither reported nor shown as the sweep's."""
    run_sweep(sweep)
    project(sweep)
    before = {run.info.run_id: run for run in runs(sweep)}

    monkeypatch.setattr("orchestrator.sweeps.training_groups.EVALUATION_VERSION", 999)
    monkeypatch.setattr(ProtocolCounts, "accuracy", lambda *_: 0.25)
    trained = sum(state.done_shards() for state in read_states(sweep.folder, {}).values())
    run_sweep(sweep)
    states = read_states(sweep.folder, {})
    assert sum(state.done_shards() for state in states.values()) == trained == 3
    told = tables.points_table(sweep.plan(), states)
    assert set(told[told["metric"] == "accuracy"]["value"]) == {0.25}
    project(sweep)
    project(sweep)
    after = {run.info.run_id: run for run in runs(sweep)}
    for run_id, run in before.items():
        kind = run.data.tags["supsup.kind"]
        assert after[run_id].data.tags["supsup.kind"] == ("superseded" if kind == "evaluation" else kind)
    new = [run for run_id, run in after.items() if run_id not in before]
    assert [run.data.tags["supsup.kind"] for run in new] == ["evaluation"] * 2
    assert {run.data.metrics["accuracy"] for run in new} == {0.25}
    (parent,) = (run for run in after.values() if run.data.tags["supsup.kind"] == "sweep")
    assert {value for name, value in parent.data.metrics.items() if name.startswith("accuracy")} == {0.25}
    history = client(sweep).get_metric_history(parent.info.run_id, "accuracy/GG")
    assert len(history) == 2 * len({metric.step for metric in history})

    monkeypatch.undo()
    track(sweep)
    assert {run.info.run_id for run in runs(sweep) if run.data.tags["supsup.kind"] == "evaluation"} < set(before)


def test_a_rebuilt_ledger_duplicates_no_point(sweep: Sweep) -> None:
    run_sweep(sweep)
    project(sweep)
    wanted = points(sweep)
    (group,) = sweep.folder.groups()
    for path in group.path.glob("ledger.*"):
        path.unlink()
    run_sweep(sweep)
    project(sweep)
    project(sweep, track(sweep, "run"))
    assert points(sweep) == wanted
    assert sum(re.search("with another value or time|has lost rows", fault) is not None for fault in faults(sweep)) > 3
    repair(sweep)
    assert faults(sweep) == []


def test_a_launch_does_not_replace_the_runs_of_another_output_with_the_same_sweep(
    projected: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    """On a team's server, two people may run the same sweep file."""
    theirs = own_points(projected)
    ours = {group_id: [Row(row.seq, row.time_ms + 1000, row.event) for row in rows]
            for group_id, rows in ledgers(projected).items()}  # fmt: skip
    tracker = track(projected, "run")
    for group_id, rows in ours.items():
        tracker.project({group_id: rows[:-4]})
        assert "ledger.sqlite: MLflow has accuracy at step 3 (" in caplog.text
        assert ", but the ledger does not; `supsup fsck output=" in caplog.text
        tracker.project({group_id: rows})
    assert own_points(projected) == theirs
    tracker = track(projected, "repair")
    tracker.project(ours)
    assert own_points(projected) == {
        uid: {
            name: [(step, value, time_ms + 1000 * (name[:9] != "accuracy/")) for step, value, time_ms in found]
            for name, found in metrics.items()
        }
        for uid, metrics in theirs.items()
    }


def test_mlflow_runs_have_names_tags_and_parents_for_the_pages(sweep: Sweep) -> None:
    run_sweep(sweep)
    tracker = track(sweep)
    project(sweep, tracker)
    tracker.finish({group.group_id: "done" for group in sweep.plan()})
    found = {run.info.run_name: run for run in runs(sweep)}
    assert set(found) == {sweep.sweep_id, "train seed=0", "GG seed=0", "GNu one_shot entropy seed=0"}
    parent = found.pop(sweep.sweep_id)
    assert parent.data.tags["supsup.kind"] == "sweep"
    means = {"GG": "accuracy/GG", "GNu one_shot entropy": "accuracy/GNu one_shot entropy"}
    for label, name in means.items():
        assert parent.data.metrics[name] == found[f"{label} seed=0"].data.metrics["accuracy"]
    assert set(parent.data.metrics) == set(means.values())
    for run in found.values():
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["supsup.version.torch"] == importlib.metadata.version("torch")
        assert run.data.params["benchmark.num_tasks"] == "3"
        assert run.inputs.dataset_inputs[0].dataset.name == "digits"
        assert {file.path for file in client(sweep).list_artifacts(run.info.run_id)} == {"config.yaml"}
    evaluation = found["GNu one_shot entropy seed=0"]
    assert evaluation.data.params["inference.objective"] == "entropy"
    assert evaluation.data.tags["supsup.configuration"] == "GNu one_shot entropy"
    assert evaluation.data.tags["supsup.training_run"] == found["train seed=0"].info.run_id
    assert "inference.objective" not in found["train seed=0"].data.params


def test_each_mlflow_run_has_the_machine_kinds_of_its_own_results_as_tags(sweep: Sweep) -> None:
    (group,) = sweep.plan()
    kinds: tuple[Machines, Machines] = ((ONE_KIND,), (ONE_KIND, OTHER_KIND))
    rows: list[AnyRow] = []
    for number, (run, machines) in enumerate(zip(group.runs, kinds, strict=True)):
        evaluated = TaskEvaluated(f"key {number}", replace(EVALUATED, machines=machines), "")
        rows += [Row(0, 0, evaluated), Row(0, 0, PointCompleted(run.run_id, 3, {}, (f"key {number}",)))]
    tracker = track(sweep)
    tracker.tag_machines({})
    assert not [run for run in runs(sweep) if "supsup.machines" in run.data.tags]
    for part in (rows[:2], rows):
        tracker.tag_machines({group.group_id: GroupState().apply(part)})
    found = {run.info.run_name: run.data.tags for run in runs(sweep)}
    mixed = {name: tags["supsup.mixed_machines"] for name, tags in found.items()}
    assert mixed == {
        sweep.sweep_id: "true", "train seed=0": "true", "GG seed=0": "false", "GNu one_shot entropy seed=0": "true",
    }  # fmt: skip
    assert found["GG seed=0"]["supsup.machines"] == str(ONE_KIND)
    assert found[sweep.sweep_id]["supsup.machines"] == f"{ONE_KIND} | {OTHER_KIND}"


def test_the_tag_of_very_many_machine_kinds_is_cut_to_a_length_that_mlflow_accepts(sweep: Sweep) -> None:
    many = [replace(ONE_KIND, threads=number) for number in range(1, 100)]
    tags = machine_tags(many)
    assert len(tags["supsup.machines"]) == 8000
    track(sweep)
    for run in runs(sweep):
        client(sweep).set_tag(run.info.run_id, "supsup.machines", tags["supsup.machines"])


def test_the_mlflow_run_of_the_sweep_has_the_mean_over_seeds_when_all_seeds_are_evaluated(
    sweep_file: Callable[..., Path],
    give_database: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = open_sweep(sweep_file(seeds=[0, 1]), [])
    give_database(sweep.output.path)
    groups = sweep.plan()
    sweep.save(groups)
    unfinished = take_stock(sweep, groups, describe(sweep.imports_folder), cluster=None)
    first = groups[0].group_id
    launch(sweep, {first: unfinished.pop(first)}, cluster=None)
    uid = f"{sweep.sweep_id}/sweep/{sweep.sweep_id}"
    project(sweep)
    assert points(sweep)[uid] == {}
    launch(sweep, unfinished, cluster=None)
    project(sweep)
    project(sweep)
    found = points(sweep)
    seeds = [{step: value for step, value, _ in found[f"{sweep.sweep_id}/evaluation/{run.run_id}"]["accuracy"]}
             for group in groups for run in group.runs]  # fmt: skip
    means = [(step, value) for step, value, _ in found[uid]["accuracy"]]
    assert means == [(n, (seeds[0][n] + seeds[1][n]) / 2) for n in (1, 3)]


def test_the_mlflow_status_of_a_killed_sweep_is_corrected_when_it_is_finished_later(sweep: Sweep) -> None:
    run_sweep(sweep)
    track(sweep)  # as if its process were killed now: every run has status RUNNING
    assert {run.info.status for run in runs(sweep)} == {"RUNNING"}
    later = track(sweep)
    project(sweep, later)
    later.finish({group.group_id: "done" for group in sweep.plan()})
    assert {run.info.status for run in runs(sweep)} == {"FINISHED"}
    assert len(runs(sweep)) == 4


@pytest.mark.parametrize(("status", "word"), [("failed", "FAILED"), ("interrupted", "KILLED"), ("done", "FINISHED")])
def test_the_status_of_an_mlflow_run_follows_the_ledger(sweep: Sweep, status: LaunchStatus, word: str) -> None:
    tracker = track(sweep)
    tracker.finish({group.group_id: status for group in sweep.plan()})
    assert {run.info.status for run in runs(sweep)} == {word}


def test_a_task_trained_again_under_the_same_writer_duplicates_no_point(sweep: Sweep) -> None:
    run_sweep(sweep)
    tracker = track(sweep)
    project(sweep, tracker)
    wanted = points(sweep)
    (group,) = sweep.plan()
    sweep.output.store.file(group.shards[1].key).write_bytes(b"damaged")
    run_sweep(sweep)
    project(sweep, tracker)
    assert points(sweep) == wanted


def test_system_metrics_of_the_machine_are_logged_while_a_sweep_runs(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    run_sweep(sweep)
    for _ in range(2):
        tracker = track(sweep)
        tracker.watch_machine()
        time.sleep(1)
        tracker.finish({})
    (found,) = (keys for uid, keys in points(sweep).items() if "/sweep/" in uid)
    steps = [step for step, _, _ in found["system/cpu_utilization_percentage"]]
    assert steps == list(range(len(steps)))
    assert len(steps) > 2


def test_a_deleted_experiment_is_restored(sweep: Sweep, caplog: pytest.LogCaptureFixture) -> None:
    run_sweep(sweep)
    project(sweep)
    wanted = points(sweep)
    experiment = client(sweep).get_experiment_by_name(sweep.config.name)
    client(sweep).delete_experiment(experiment.experiment_id)
    project(sweep)
    assert points(sweep) == wanted
    assert "had been deleted in MLflow; it is restored" in caplog.text


def test_a_moved_output_has_its_artifacts_in_its_present_place(sweep: Sweep, tmp_path: Path) -> None:
    """The report is written by another process, because MLflow remembers where each run has its artifacts."""
    run_sweep(sweep)
    tracker = track(sweep)
    tracker.attach([sweep.folder.sweep_file], "earlier")
    tracker.close()
    before = sweep.output.path
    after = before.rename(before.with_name("what? C# 50%25"))
    command = [*PROGRAM, "report", f"output={after}"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert found.returncode == 0, found.stderr
    assert not before.exists()
    moved = replace(sweep, config=replace(sweep.config, output=str(after)))
    (parent,) = [run for run in runs(moved) if run.data.tags["supsup.kind"] == "sweep"]
    home = after / "mlflow" / "artifacts" / parent.info.run_id / "artifacts"
    assert parent.info.artifact_uri == home.as_uri()
    assert {path.name for path in home.iterdir()} >= {"earlier", "report"}
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {after.name}


def test_a_users_own_experiment_keeps_its_place_when_the_output_is_moved(sweep: Sweep, tmp_path: Path) -> None:
    run_sweep(sweep)
    track(sweep)
    elsewhere = (tmp_path / "elsewhere").as_uri()
    client(sweep).create_experiment("mine", artifact_location=elsewhere)
    after = sweep.output.path.rename(tmp_path / "after")
    moved = OutputFolder(after).mlflow
    relocate(moved)
    with closing(sqlite3.connect(moved.database)) as db:
        found = dict(db.execute("SELECT name, artifact_location FROM experiments WHERE experiment_id <> 0"))
    assert found == {sweep.config.name: moved.artifacts.as_uri(), "mine": elsewhere}
