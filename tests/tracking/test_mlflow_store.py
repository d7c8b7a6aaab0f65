"""The MLflow database of an output is complete or absent, and no MLflow run is created twice."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest

from orchestrator.base import environment
from orchestrator.base.output_folder import MLflowFolder
from orchestrator.records.group_state import LaunchStatus
from orchestrator.records.rows import PointCompleted, Row
from orchestrator.sweeps.sweep import Sweep
from orchestrator.tracking.mlflow_address import WriterBusyError, tracking_uri, tracking_uri_of
from orchestrator.tracking.mlflow_store import connect, create_database
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.moved_output import relocate
from tests.local_runs import ledgers, run_sweep
from tests.tracking.projection import faults, points, project, runs, states_of, track


def test_after_a_crash_during_the_creation_of_the_database_it_is_created_again(
    empty: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow cannot continue with partly created tables."""
    run_sweep(empty)
    folder = empty.output.mlflow

    def half_made(self: object, **_: object) -> None:
        folder.partial_database(1).write_bytes(b"half made")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mlflow.MlflowClient.search_experiments", half_made)
        with pytest.raises(KeyboardInterrupt):
            track(empty)
    assert not folder.database.exists()
    project(empty)
    assert points(empty)
    assert not list(folder.partial_databases())


def test_an_existing_database_is_not_changed(tmp_path: Path) -> None:
    folder = MLflowFolder(tmp_path)
    with contextlib.closing(sqlite3.connect(folder.database)) as db:
        db.execute("CREATE TABLE mine (value)")
    before = folder.database.read_bytes()
    create_database(folder)
    assert folder.database.read_bytes() == before


def test_a_database_that_sqlite_cannot_open_is_told_at_once(empty: Sweep) -> None:
    """MLflow itself would retry for 101 seconds."""
    project(empty)
    empty.output.mlflow.database.unlink()
    empty.output.mlflow.database.mkdir()
    began = time.monotonic()
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
        connect(empty)
    assert time.monotonic() - began < 20


def test_a_database_that_sqlite_cannot_create_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = MLflowFolder(tmp_path)
    monkeypatch.setattr(MLflowFolder, "partial_database", lambda self, number: tmp_path)
    began = time.monotonic()
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
        create_database(folder)
    assert time.monotonic() - began < 20


def test_the_default_experiment_of_mlflow_has_its_artifacts_in_the_output(tmp_path: Path) -> None:
    folder, moved = MLflowFolder(tmp_path / "runs" / "mlflow"), MLflowFolder(tmp_path / "moved" / "mlflow")
    folder.path.mkdir(parents=True)
    create_database(folder)
    assert _default_location(folder) == folder.artifacts.as_uri()
    folder.path.parent.rename(moved.path.parent)
    relocate(moved)
    assert _default_location(moved) == moved.artifacts.as_uri()
    assert str(tmp_path / "runs").encode() not in moved.database.read_bytes()


def _default_location(folder: MLflowFolder) -> str:
    return str(mlflow.MlflowClient(tracking_uri(folder)).get_experiment("0").artifact_location)


def test_a_database_is_created_in_a_folder_whose_name_an_address_cannot_contain(tmp_path: Path) -> None:
    folder = MLflowFolder(tmp_path / "what? C# 50%25" / "mlflow")
    folder.path.mkdir(parents=True)
    create_database(folder)
    assert [path.name for path in folder.path.iterdir()] == [folder.database.name]
    assert [path.name for path in tmp_path.iterdir()] == ["what? C# 50%25"]


def test_a_second_writer_waits_for_the_first_and_creates_no_run_twice(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = track(sweep)
    monkeypatch.setattr("orchestrator.tracking.mlflow_store.LOCK_SECONDS", 0.1)
    describe = environment.describe(sweep.imports_folder)
    with pytest.raises(WriterBusyError, match=r"another process is writing .* `supsup report small-\w+ output=runs`"):
        Tracker(sweep, sweep.plan(), describe, purpose="run")
    monkeypatch.undo()
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(Tracker, sweep, sweep.plan(), describe, purpose="run")
        assert not wait([second], timeout=0.5).done
        first.close()
        second.result(timeout=20).close()
    assert len(runs(sweep)) == len({run.data.tags["supsup.uid"] for run in runs(sweep)}) == 4


def test_a_tracker_that_cannot_be_opened_releases_the_lock(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OSError("the store is away")

    monkeypatch.setattr("orchestrator.tracking.mlflow_store.LOCK_SECONDS", 0.1)
    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "create_run", away)
        with pytest.raises(OSError, match="away"):
            track(sweep)
    track(sweep)


def on_a_server(sweep: Sweep, monkeypatch: pytest.MonkeyPatch, other: Path) -> tuple[Sweep, Sweep]:
    """Returns a sweep as two machines with separate outputs open it, on one server. other: the second machine's output.

    The database of the first output plays the server.
    """
    uri = tracking_uri_of(sweep)
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr("orchestrator.tracking.mlflow_store.tracking_uri_of", lambda _: uri)
    here = replace(sweep.config, tracking="http://localhost:5000")
    return replace(sweep, config=here), replace(sweep, config=replace(here, output=str(other)))


@pytest.mark.parametrize("is_later", [True, False])
def test_two_machines_that_create_the_same_runs_on_a_server_keep_one_of_each(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_later: bool
) -> None:
    """No lock can exclude this. The second machine creates all runs just before the first machine creates its own ones.

    is_later: whether the second machine's clock is ahead of the first machine's clock.
    """
    run_sweep(sweep)
    shutil.copytree(sweep.output.path / "sweeps", tmp_path / "other" / "sweeps")
    here, there = on_a_server(sweep, monkeypatch, tmp_path / "other")
    described = environment.describe(sweep.imports_folder)
    create = mlflow.MlflowClient.create_run
    trackers: list[Tracker] = []
    shift_ms = 1_000_000 if is_later else -1_000_000

    def create_there(self: Any, experiment_id: str, start_time: int | None = None, **named: Any) -> Any:
        return create(self, experiment_id, time.time_ns() // 1_000_000 + shift_ms, **named)

    def create_here(self: Any, *arguments: Any, **named: Any) -> Any:
        if not trackers:
            with monkeypatch.context() as patched:
                patched.setattr(mlflow.MlflowClient, "create_run", create_there)
                trackers.append(Tracker(there, there.plan(), described, purpose="run"))
        return create(self, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "create_run", create_here)
        trackers.append(Tracker(here, here.plan(), described, purpose="run"))
    found = runs(sweep)
    assert len(found) == len({run.data.tags["supsup.uid"] for run in found}) == 4
    ended: dict[str, LaunchStatus] = {group.group_id: "done" for group in here.plan()}
    trackers[1].project(ledgers(here))
    for write in (lambda: trackers[0].project(ledgers(there)), lambda: trackers[0].finish({})):
        with pytest.raises(WriterBusyError, match=r"when it has ended, `supsup report small-\w+ output=other` writes"):
            write()
    trackers[1].tag_machines(states_of(here))
    trackers[1].finish(ended)
    for tracker in trackers:
        tracker.close()
    assert faults(here) == []


def test_a_machine_that_takes_over_a_sweep_stops_the_writing_of_the_other(
    projected: Sweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The other machine's last rows are in no snapshot, so the new machine computes them again, at another time."""
    here, there = on_a_server(projected, monkeypatch, tmp_path / "other")
    described = environment.describe(here.imports_folder)
    ((group_id, rows),) = ledgers(here).items()
    kept = [row for row in rows if not isinstance(row.event, PointCompleted)]
    computed_again = [Row(row.seq, row.time_ms + 7, row.event) for row in rows if isinstance(row.event, PointCompleted)]
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.closing(Tracker(here, here.plan(), described, purpose="run")))
        first.project({group_id: rows[:-1]})
        second = stack.enter_context(contextlib.closing(Tracker(there, there.plan(), described, purpose="run")))
        second.project({group_id: [*kept[:-1]]})
        assert "the ledger has lost rows: MLflow has accuracy" in caplog.text
        for write in (lambda: first.project({group_id: rows}), lambda: first.finish({}), lambda: first.attach([], "")):
            with pytest.raises(WriterBusyError):
                write()
        moved = [Row(rows[-1].seq + number, row.time_ms, row.event) for number, row in enumerate(computed_again)]
        second.project({group_id: moved})
    assert len(runs(projected)) == 4
    for run in here.plan()[0].runs:
        found = points(projected)[f"{here.sweep_id}/evaluation/{run.run_id}"]["accuracy"]
        assert [time_ms for _, _, time_ms in found] == [
            row.time_ms for row in computed_again if row.event.run_id == run.run_id
        ]


def test_an_experiment_that_another_machine_creates_at_the_same_time_is_used(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, answers = mlflow.MlflowClient.get_experiment_by_name, [None]
    mlflow.MlflowClient(tracking_uri_of(sweep)).create_experiment(sweep.config.name)
    monkeypatch.setattr(
        mlflow.MlflowClient, "get_experiment_by_name", lambda *arguments: answers.pop() if answers else real(*arguments)
    )
    track(sweep)
    assert answers == []
    assert len(runs(sweep)) == 4
