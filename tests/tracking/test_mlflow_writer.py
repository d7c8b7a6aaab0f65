"""MLflow as a projection: complete, never doubled, and the runs are shaped for its pages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import mlflow
import pytest

from orchestrator.base.environment import describe
from orchestrator.execution.launch import launch, take_stock
from orchestrator.records.ledger import LedgerReader
from orchestrator.results.progress_line import Progress
from orchestrator.results.report import tables
from orchestrator.sweeps.lookup import open_sweep, read_states
from orchestrator.sweeps.sweep import Sweep
from orchestrator.tracking.mlflow_writer import Tracker, tracking_uri
from orchestrator.tracking.monitor import Monitor, conclude

Points = dict[str, dict[str, list[tuple[int, float, int]]]]


@pytest.fixture
def empty(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    """A sweep whose output has no database yet."""
    monkeypatch.chdir(tmp_path)
    return open_sweep(sweep_file(grid={"scenario": ["GG", "GNu"]}), [])


@pytest.fixture
def sweep(empty: Sweep, give_database: Callable[[Path], None]) -> Sweep:
    give_database(empty.output)
    return empty


def track(sweep: Sweep) -> Tracker:
    return Tracker(sweep, sweep.plan(), describe(sweep.folder))


def run_sweep(sweep: Sweep) -> None:
    groups = sweep.plan()
    sweep.save(groups)
    launch(sweep, take_stock(sweep, groups, describe(sweep.folder), cluster=None), cluster=None)


def client(sweep: Sweep) -> Any:
    return mlflow.MlflowClient(tracking_uri(sweep.output))


def runs(sweep: Sweep) -> list[Any]:
    experiment = client(sweep).get_experiment_by_name("small")
    return list(client(sweep).search_runs([experiment.experiment_id]))


def points(sweep: Sweep) -> Points:
    found: Points = {}
    for run in runs(sweep):
        uid = run.data.tags["supsup.uid"]
        found[uid] = {
            key: [(m.step, m.value, m.timestamp) for m in client(sweep).get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
    return found


def test_every_row_of_the_ledger_is_one_point_with_its_time(sweep: Sweep) -> None:
    run_sweep(sweep)
    tracker = track(sweep)
    tracker.project()
    (group,) = sweep.plan()
    with LedgerReader(sweep.ledger_path(group.group_id)) as reader:
        rows = reader.rows()
    found = points(sweep)
    training = found[f"{sweep.sweep_id}/training/{group.group_id}"]
    trained = [row for row in rows if row.kind == "trained"]
    accuracy = {(row.payload["facts"]["task"], row.payload["facts"]["accuracy"], row.time_ms) for row in trained}
    assert set(training["task_accuracy"]) == accuracy
    assert sorted(step for step, _, _ in training["loss"]) == list(range(3, 91, 3))
    assert len(training["images_per_second"]) == 3
    for run in group.runs:
        wanted = {
            (row.payload["num_learned"], row.payload["metrics"]["accuracy"], row.time_ms)
            for row in rows
            if row.kind == "point" and row.payload["run_id"] == run.run_id
        }
        assert set(found[f"{sweep.sweep_id}/evaluation/{run.run_id}"]["accuracy"]) == wanted
        assert len(wanted) == 2


def test_projecting_again_from_any_moment_adds_nothing(sweep: Sweep) -> None:
    run_sweep(sweep)
    first = track(sweep)
    first.project()
    wanted = points(sweep)
    first.project()
    track(sweep).project()
    track(sweep).finish({})
    track(sweep).project()
    assert points(sweep) == wanted


def test_what_another_version_evaluates_is_a_run_of_its_own(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored masks stay; results of an earlier version are neither reported nor shown as the sweep's."""
    run_sweep(sweep)
    track(sweep).project()
    before = {run.info.run_id: run for run in runs(sweep)}

    monkeypatch.setattr("orchestrator.sweeps.training_groups.EVALUATION_VERSION", 999)
    monkeypatch.setattr("supsup_core.evaluation.point_metrics.task_accuracy", lambda *_: 0.25)
    trained = sum(state.done_shards() for state in read_states(sweep).values())
    run_sweep(sweep)
    states = read_states(sweep)
    assert sum(state.done_shards() for state in states.values()) == trained == 3
    told = tables.points_table(sweep.plan(), states)
    assert set(told[told["metric"] == "accuracy"]["value"]) == {0.25}
    track(sweep).project()
    track(sweep).project()
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


def test_what_a_crash_left_half_written_is_completed(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer dies between two batches; the next one writes the rest."""
    run_sweep(sweep)
    half = track(sweep)
    monkeypatch.setattr("orchestrator.tracking.mlflow_writer._BATCH", 7)
    real, calls = half._client.log_batch, []

    def dying(*arguments: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(*arguments, **named)

    monkeypatch.setattr(half._client, "log_batch", dying)
    with pytest.raises(KeyboardInterrupt):
        half.project()
    track(sweep).project()
    found = points(sweep)
    loss = next(metrics["loss"] for uid, metrics in found.items() if "/training/" in uid)
    assert sorted(step for step, _, _ in loss) == list(range(3, 91, 3))
    assert all(len({step for step, _, _ in history}) == len(history) for m in found.values() for history in m.values())


def test_a_rebuilt_ledger_doubles_no_point(sweep: Sweep) -> None:
    run_sweep(sweep)
    track(sweep).project()
    wanted = points(sweep)
    (group,) = sweep.plan()
    for path in sweep.ledger_path(group.group_id).parent.glob("ledger.sqlite*"):
        path.unlink()
    run_sweep(sweep)
    track(sweep).project()
    assert points(sweep) == wanted


def test_runs_are_named_tagged_and_nested_for_the_pages(sweep: Sweep) -> None:
    run_sweep(sweep)
    tracker = track(sweep)
    tracker.project()
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
        assert run.data.tags["supsup.version.torch"] == "2.13.0+cpu" or run.data.tags["supsup.version.torch"]
        assert run.data.params["benchmark.num_tasks"] == "3"
        assert run.inputs.dataset_inputs[0].dataset.name == "digits"
        assert {file.path for file in client(sweep).list_artifacts(run.info.run_id)} == {"config.yaml"}
    evaluation = found["GNu one_shot entropy seed=0"]
    assert evaluation.data.params["inference.objective"] == "entropy"
    assert evaluation.data.tags["supsup.configuration"] == "GNu one_shot entropy"
    assert evaluation.data.tags["supsup.training_run"] == found["train seed=0"].info.run_id
    assert "inference.objective" not in found["train seed=0"].data.params


def test_the_sweeps_own_run_has_the_mean_over_seeds_once_all_are_in(
    sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = open_sweep(sweep_file(seeds=[0, 1]), [])
    groups = sweep.plan()
    sweep.save(groups)
    unfinished = take_stock(sweep, groups, describe(sweep.folder), cluster=None)
    first = groups[0].group_id
    launch(sweep, {first: unfinished.pop(first)}, cluster=None)
    uid = f"{sweep.sweep_id}/sweep/{sweep.sweep_id}"
    track(sweep).project()
    assert points(sweep)[uid] == {}
    launch(sweep, unfinished, cluster=None)
    track(sweep).project()
    track(sweep).project()
    found = points(sweep)
    seeds = [{step: value for step, value, _ in found[f"{sweep.sweep_id}/evaluation/{run.run_id}"]["accuracy"]}
             for group in groups for run in group.runs]  # fmt: skip
    means = [(step, value) for step, value, _ in found[uid]["accuracy"]]
    assert means == [(n, (seeds[0][n] + seeds[1][n]) / 2) for n in (1, 3)]


def test_a_killed_run_does_not_stay_running_once_it_is_finished_later(sweep: Sweep) -> None:
    run_sweep(sweep)
    track(sweep)  # its process is killed here: every run says RUNNING
    assert {run.info.status for run in runs(sweep)} == {"RUNNING"}
    later = track(sweep)
    later.project()
    later.finish({group.group_id: "done" for group in sweep.plan()})
    assert {run.info.status for run in runs(sweep)} == {"FINISHED"}
    assert len(runs(sweep)) == 4


@pytest.mark.parametrize(("status", "word"), [("failed", "FAILED"), ("interrupted", "KILLED"), ("done", "FINISHED")])
def test_runs_end_as_the_ledger_says(sweep: Sweep, status: str, word: str) -> None:
    tracker = track(sweep)
    tracker.finish({group.group_id: status for group in sweep.plan()})
    assert {run.info.status for run in runs(sweep)} == {word}


def test_a_write_that_failed_once_is_made_again_by_the_same_writer(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_sweep(sweep)
    tracker = track(sweep)

    def locked(*arguments: Any, **named: Any) -> None:
        raise OSError("database is locked")

    with monkeypatch.context() as patched:
        patched.setattr(tracker._client, "log_batch", locked)
        with pytest.raises(OSError, match="locked"):
            tracker.project()
    tracker.project()
    loss = next(metrics["loss"] for uid, metrics in points(sweep).items() if "/training/" in uid)
    assert sorted(step for step, _, _ in loss) == list(range(3, 91, 3))


def test_a_task_trained_again_under_the_same_writer_doubles_no_point(sweep: Sweep) -> None:
    run_sweep(sweep)
    tracker = track(sweep)
    tracker.project()
    wanted = points(sweep)
    (group,) = sweep.plan()
    store = sweep.output / "store" / group.shards[1].key[:2] / f"{group.shards[1].key}.safetensors"
    store.write_bytes(b"spoilt")
    run_sweep(sweep)
    tracker.project()
    assert points(sweep) == wanted


def test_once_a_sweep_ends_no_progress_is_shown_below_its_summary(sweep: Sweep) -> None:
    run_sweep(sweep)
    shown: list[Any] = []

    class Screen:
        update = shown.append

    monitor = Monitor(sweep, sweep.plan(), describe(sweep.folder), cast("Progress", Screen()))
    monitor.tick()
    assert len(shown) == 1
    monitor.finish([])
    assert len(shown) == 1
    assert points(sweep)


def test_a_crash_while_the_database_is_made_leaves_nothing_in_the_way(
    empty: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow cannot go on with tables half made."""
    run_sweep(empty)

    def half_made(self: object, **_: object) -> None:
        (empty.output / "mlflow" / "mlflow.db.1.partial").write_bytes(b"half made")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mlflow.MlflowClient.search_experiments", half_made)
        with pytest.raises(KeyboardInterrupt):
            track(empty)
    assert not (empty.output / "mlflow" / "mlflow.db").exists()
    track(empty).project()
    assert points(empty)
    assert not list((empty.output / "mlflow").glob("*.partial"))


def test_a_run_shows_its_tasks_and_confusions_as_tables_once(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(sweep.output))  # load_table asks no client
    run_sweep(sweep)
    groups, states = sweep.plan(), read_states(sweep)
    for _ in range(2):  # a report is made again whenever one asks for it
        tracker = track(sweep)
        tracker.project()
        conclude(tracker, groups, states, [])
    wanted = tables.tasks_table(groups, states)
    for run in runs(sweep):
        if run.data.tags["supsup.kind"] != "evaluation":
            continue
        names = [artifact.path for artifact in client(sweep).list_artifacts(run.info.run_id, "tables")]
        inferred = run.data.params["scenario"] == "GNu"
        assert names == ["tables/confusion.json"] * inferred + ["tables/tasks.json"]
        logged = client(sweep).load_table(run.info.experiment_id, "tables/tasks.json", [run.info.run_id])
        mine = wanted[(wanted["num_learned"] == 3) & wanted["run"].str.startswith(run.data.params["scenario"])]
        assert logged["accuracy"].tolist() == pytest.approx(mine["accuracy"].tolist(), abs=1e-9)  # JSON has ten digits
        shown = json.loads(run.data.tags["mlflow.loggedArtifacts"])  # by these its pages offer them
        assert sorted(item["path"] for item in shown if item["type"] == "table") == names


def test_the_machine_is_measured_while_a_sweep_runs(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
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
