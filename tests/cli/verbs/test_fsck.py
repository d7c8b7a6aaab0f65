"""`supsup fsck --mlflow`, and what `resume` and `report` do when MLflow and the ledgers differ."""

from __future__ import annotations

import re
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
from filelock import FileLock

from orchestrator.base.folder_lock import owned
from orchestrator.base.output_folder import OutputFolder
from orchestrator.records.ledgers.last_commit import last_commit_path
from orchestrator.records.ledgers.ledger_file import snapshot_path
from orchestrator.tracking.mlflow_address import tracking_uri
from tests.conftest import SMALL_NNS
from tests.outputs import nns_science, scientific_points, the_ledger

Command = Callable[..., Any]

NNS = {**SMALL_NNS, "commit_every": 0.001}


def store_of(output: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri(OutputFolder(output).mlflow))


def runs_of(output: Path) -> dict[str, Any]:
    """Returns the MLflow runs by name."""
    client = store_of(output)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def cut(ledger: Path, kind: str, number: int) -> None:
    """Deletes the last rows of a ledger: all rows after the row with this number among the rows of a kind.

    Deletes the snapshot too, because it would restore these rows, and the note of the last commit, so that only MLflow
    still knows of them.
    """
    snapshot_path(ledger).unlink()
    last_commit_path(ledger).unlink()
    with closing(sqlite3.connect(ledger)) as db, db:
        (last,) = db.execute(
            "SELECT seq FROM rows WHERE kind = ? ORDER BY seq LIMIT 1 OFFSET ?", (kind, number)
        ).fetchone()
        db.execute("DELETE FROM rows WHERE seq > ?", (last,))
        db.execute("DELETE FROM attachments WHERE seq > ?", (last,))


def test_faults_are_printed_and_repaired(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert supsup("sweep", sweep_file(), "--local").code == 0
    wanted = scientific_points(tmp_path / "runs", "small")
    sound = supsup("fsck", "--mlflow")
    assert (sound.code, sound.err) == (0, "")
    assert "every ledger: found 0 faults\nsmall-" in sound.out
    assert re.search(r": compared 3 MLflow runs and \d+ metric points with the ledgers: found 0 faults\n$", sound.out)
    client, runs = store_of(tmp_path / "runs"), runs_of(tmp_path / "runs")
    client.delete_run(runs["train seed=0"].info.run_id)
    assert "MLflow" not in supsup("fsck").out
    found = supsup("fsck", "--mlflow")
    assert found.code == 1
    assert "the MLflow run 'train seed=0' is missing\n" in found.out
    assert "found 1 fault\nto correct the MLflow runs, add --repair\n" in found.out
    with owned(next((tmp_path / "runs" / "sweeps").iterdir())):
        running = supsup("fsck", "--mlflow")
        assert (running.code, "is still running; compare its MLflow runs when the sweep has ended" in running.out) == (
            0,
            True,
        )
        assert supsup("fsck", "--mlflow", "--repair").code == 2
    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "search_runs", lambda *_, **__: 1 / 0)
        unreadable = supsup("fsck", "--mlflow")
        assert unreadable.code == 1
        assert ": the MLflow runs cannot be compared: division by zero\n" in unreadable.out
    repaired = supsup("fsck", "--mlflow", "--repair")
    assert (repaired.code, repaired.err) == (0, "")
    assert (
        repaired.out.count("found 1 fault\n")
        == repaired.out.count("metric points with the ledgers: found 0 faults")
        == 1
    )
    assert supsup("fsck", "--mlflow").code == 0
    assert scientific_points(tmp_path / "runs", "small") == wanted
    (record,) = (tmp_path / "runs").glob("sweeps/*/sweep.json")
    record.write_text(record.read_text()[:-20])
    damaged = supsup("fsck", "--mlflow")
    assert (damaged.code, damaged.out.count("sweep.json: is damaged")) == (1, 1)


def test_a_run_of_nns_whose_ledger_lost_its_last_rows_is_told_and_every_point_is_written_once(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    """The lost rounds are computed again to the same bits, but at another time."""
    assert supsup("sweep", sweep_file(**NNS), "--local").code == 0
    output, ledger = tmp_path / "runs", the_ledger(tmp_path / "runs")
    wanted, science = scientific_points(output, "small"), nns_science(ledger)
    cut(ledger, "committed", 3)
    shutil.copytree(output, tmp_path / "copy")

    found = supsup("fsck", "--mlflow")
    assert found.code == 1
    assert "ledger.sqlite: has lost its last rows: small-" in found.out
    assert "`supsup resume small-" in found.out
    reported = supsup("report")
    assert reported.code == 0
    assert "ledger.sqlite: MLflow has " in reported.err
    assert ", but the ledger does not; `supsup fsck output=runs --mlflow` shows all differences" in reported.err
    assert scientific_points(output, "small") == wanted

    resumed = supsup("resume", "--local")
    assert resumed.code == 0, resumed.err
    told = [line for line in resumed.err.splitlines() if "the ledger has lost rows: MLflow has " in line]
    assert len(told) == 1
    assert "ledger.sqlite: " in told[0]
    assert told[0].endswith("The lost work is computed again")
    assert "because MLflow contradicted the ledgers; MLflow keeps the old runs, marked as deleted" in resumed.err
    assert nns_science(ledger) == science
    assert scientific_points(output, "small") == wanted
    assert supsup("fsck", "--mlflow").code == 0
    again = supsup("resume", "--local")
    assert (again.code, "lost" in again.err) == (0, False)

    repaired = supsup("fsck", "--mlflow", "--repair", "output=copy")
    assert (repaired.code, repaired.err.count("because MLflow contradicted")) == (0, 1)
    assert supsup("fsck", "--mlflow", "output=copy").code == 0
    assert sum(map(len, scientific_points(tmp_path / "copy", "small").values())) < sum(map(len, wanted.values()))


def test_report_and_sweep_wait_for_another_writer_of_the_mlflow_runs(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process holds the lock, `report` writes no MLflow run, and a sweep trains and writes later."""
    assert supsup("sweep", sweep_file(), "--local").code == 0
    sweep_id = next((tmp_path / "runs" / "sweeps").iterdir()).name
    folder = OutputFolder(tmp_path / "runs").mlflow
    before = folder.database.read_bytes()
    lock = FileLock(folder.writer_lock_file(sweep_id), thread_local=False)
    with lock, monkeypatch.context() as patched:
        patched.setattr("orchestrator.tracking.mlflow_store.LOCK_SECONDS", 0.1)
        reported = supsup("report")
        assert (reported.code, reported.err) == (0, "")
        assert "another process is writing the sweep's MLflow runs, so this report is not attached" in reported.out
        refused = supsup("export", "small")
        assert refused.code == 2
        assert (
            "another process is writing the MLflow runs of this sweep; when it has ended, `supsup report" in refused.err
        )
    assert folder.database.read_bytes() == before
    lock.acquire()
    release = threading.Timer(2.0, lock.release)
    release.start()
    resumed = supsup("evaluate", "small", "inference.rule=binary", "--local")
    release.join()
    assert (resumed.code, "supsup:" in resumed.err) == (0, False)
    found = supsup("fsck", "--mlflow")
    assert (found.code, "compared 4 MLflow runs" in found.out) == (0, True)
