"""Every difference between MLflow and the ledgers is found, named in one line, and repaired exactly."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.sweeps.sweep import Sweep
from orchestrator.tracking.mlflow_points import is_own_metric
from tests.tracking.projection import client, faults, own_points, repair, run_of

FUTURE_MS, PAST_MS = 4_000_000_000_000, 1_000_000_000_000

TABLES = ("metrics", "latest_metrics")
"""The tables of MLflow's database that hold all points, and the newest point of each metric."""


def change(sweep: Sweep, kind: str, statement: str) -> None:
    """Changes MLflow's database. statement: an SQL statement with a condition, for the first valid run of a kind."""
    with closing(sqlite3.connect(sweep.output.mlflow.database)) as db, db:
        assert db.execute(f"{statement} AND run_uuid = ?", (run_of(sweep, kind).info.run_id,)).rowcount


def again(sweep: Sweep, start_ms: int) -> None:
    """Creates the training run a second time, as two processes without a lock did."""
    run = run_of(sweep, "training")
    tags = {key: value for key, value in run.data.tags.items() if key != "supsup.described"}
    client(sweep).create_run(run.info.experiment_id, start_ms, tags, run.info.run_name)


def log(sweep: Sweep, kind: str, name: str, step: int, time_ms: int) -> None:
    client(sweep).log_metric(run_of(sweep, kind).info.run_id, name, 0.125, time_ms, step)


def tag(sweep: Sweep, kind: str, name: str, value: str) -> None:
    client(sweep).set_tag(run_of(sweep, kind).info.run_id, name, value)


TRAIN, EVAL = r"small-\w+: the MLflow run 'train seed=0'", r"small-\w+: the MLflow run 'GG seed=0'"
ALTERED = "has 1 metric point with another value or time than in the ledger, such as"

FAULTS: dict[str, tuple[Callable[[Sweep], object], list[str]]] = {
    "a missing run": (
        lambda s: client(s).delete_run(run_of(s, "evaluation").info.run_id),
        [f"{EVAL} is missing"],
    ),
    "a later duplicate": (lambda s: again(s, FUTURE_MS), [f"{TRAIN} exists 2 times"]),
    "an earlier duplicate": (
        lambda s: again(s, PAST_MS),
        [
            f"{TRAIN} exists 2 times",
            f"{TRAIN} has the status RUNNING, not FINISHED",
            f"{TRAIN} has wrong or missing tags: supsup.described",
            f"{TRAIN} has wrong or missing params: benchmark.name, .*",
            rf"{TRAIN} lacks 39 metric points of the ledger, such as loss at step 3 \(.* UTC\)",
            f"{EVAL} has wrong or missing tags: supsup.training_run",
            r"small-\w+: the MLflow run 'GNu one_shot entropy seed=0' has wrong or missing tags: supsup.training_run",
        ],
    ),
    "an interrupted replacement": (
        lambda s: client(s).create_run(
            run_of(s, "sweep").info.experiment_id, tags={"supsup.sweep": s.sweep_id, "supsup.replaces": "0"}
        ),
        [r"small-\w+: MLflow has 1 run whose writing was interrupted"],
    ),
    "a run of an earlier version": (
        lambda s: client(s).create_run(
            run_of(s, "sweep").info.experiment_id, tags={"supsup.sweep": s.sweep_id, "supsup.uid": "gone"},
            run_name="old",
        ),
        [r"small-\w+: the MLflow run 'old' is no longer part of the sweep"],
    ),
    "a status": (
        lambda s: client(s).update_run(run_of(s, "training").info.run_id, status="RUNNING"),
        [f"{TRAIN} has the status RUNNING, not FINISHED"],
    ),
    "tags": (
        lambda s: (tag(s, "evaluation", "mlflow.parentRunId", "0"), tag(s, "evaluation", "supsup.ended", "failed")),
        [f"{EVAL} has wrong or missing tags: mlflow.parentRunId, supsup.ended"],
    ),
    "the tags of machines": (
        lambda s: [tag(s, kind, "supsup.mixed_machines", "true") for kind in ("sweep", "training", "evaluation")],
        [
            rf"small-\w+: the MLflow run '{name}' has wrong or missing tags: supsup.mixed_machines"
            for name in (r"small-\w+", "train seed=0", "GG seed=0")
        ],
    ),
    "a missing param": (
        lambda s: change(s, "training", "DELETE FROM params WHERE key = 'seed'"),
        [f"{TRAIN} has wrong or missing params: seed"],
    ),
    "a wrong param": (
        lambda s: change(s, "training", "UPDATE params SET value = '7' WHERE key = 'seed'"),
        [f"{TRAIN} has wrong or missing params: seed"],
    ),
    "missing points": (
        lambda s: change(s, "training", "DELETE FROM metrics WHERE key = 'loss' AND step > 80"),
        [rf"{TRAIN} lacks 4 metric points of the ledger, such as loss at step 81 \(.* UTC\)"],
    ),
    "a missing metric": (
        lambda s: [change(s, "evaluation", f"DELETE FROM {table} WHERE key = 'accuracy'") for table in TABLES],
        [rf"{EVAL} lacks 2 metric points of the ledger, such as accuracy at step 1 \(.* UTC\)"],
    ),
    "a missing mean": (
        lambda s: [change(s, "sweep", f"DELETE FROM {table} WHERE key = 'accuracy/GG'") for table in TABLES],
        [r".* 'small-\w+' lacks 2 metric points of the ledger, such as accuracy/GG at step 1 \(.* UTC\)"],
    ),
    "another value": (
        lambda s: change(s, "training", "UPDATE metrics SET value = 0.125 WHERE key = 'loss' AND step = 30"),
        [rf"{TRAIN} {ALTERED} loss at step 30 \(.* UTC\)"],
    ),
    "another time": (
        lambda s: change(s, "evaluation", "UPDATE metrics SET timestamp = 9 WHERE key = 'accuracy' AND step = 3"),
        [rf"{EVAL} {ALTERED} accuracy at step 3 \(.* UTC\)"],
    ),
    "a wrong mean": (
        lambda s: log(s, "sweep", "accuracy/GG", 3, FUTURE_MS),
        [rf".* 'small-\w+' {ALTERED} accuracy/GG at step 3 .*"],
    ),
    "a point written twice": (
        lambda s: log(s, "training", "loss", 30, FUTURE_MS),
        [rf"{TRAIN} {ALTERED} loss at step 30 \(2096-.* UTC\)"],
    ),
    "a later point": (
        lambda s: [log(s, "training", "loss", step, FUTURE_MS + step) for step in (93, 96)],
        [
            f".*/ledger.sqlite: has lost its last rows: {TRAIN} has 2 metric points that the ledger lacks; the newest "
            r"is loss at step 96 \(2096-10-02 07:06:40 UTC\); `supsup resume small-\w+ output=.*` computes the lost "
            "work again"
        ],
    ),
    "an earlier point": (
        lambda s: log(s, "evaluation", "forgetting", 2, PAST_MS),
        [
            f".*/ledger.sqlite: has lost rows, or another program or output has written to MLflow: {EVAL} has 1 "
            r"metric point that the ledger lacks; the newest is forgetting at step 2 \(2001-09-09 01:46:40 UTC\)"
        ],
    ),
    "a mean of no evaluation point": (
        lambda s: log(s, "sweep", "accuracy/GG", 2, PAST_MS),
        [r".* 'small-\w+' has 1 metric point that no ledger of the sweep contains; the newest is accuracy/GG .*"],
    ),
    "a deleted experiment": (
        lambda s: client(s).delete_experiment(run_of(s, "sweep").info.experiment_id),
        [r"small-\w+: MLflow has deleted the experiment small"],
    ),
    "another name of the experiment": (
        lambda s: client(s).rename_experiment(run_of(s, "sweep").info.experiment_id, "other"),
        [r"small-\w+: MLflow has no experiment small"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_every_kind_of_fault_is_found_and_repaired(projected: Sweep, kind: str) -> None:
    wanted = own_points(projected)
    damage, lines = FAULTS[kind]
    damage(projected)
    found = faults(projected)
    assert len(found) == len(lines), found
    for fault, line in zip(found, lines, strict=True):
        assert re.fullmatch(line, fault), fault
    repair(projected)
    assert faults(projected) == []
    left = own_points(projected)
    left.pop("gone", None)
    assert left == wanted


def test_a_check_changes_nothing(projected: Sweep) -> None:
    again(projected, PAST_MS)
    log(projected, "training", "loss", 93, FUTURE_MS)
    before = projected.output.mlflow.database.read_bytes()
    assert faults(projected)
    assert projected.output.mlflow.database.read_bytes() == before


def test_a_lost_database_is_written_again(
    finished: Sweep, projected: Sweep, give_database: Callable[[Path], None]
) -> None:
    """The database is deleted before this process opens it, because MLflow keeps databases open."""
    database = projected.output.mlflow.database
    database.unlink()
    assert faults(projected) == [f"{projected.sweep_id}: there is no MLflow database {database}"]
    assert not database.exists()
    give_database(projected.output.path)
    repair(projected)
    assert faults(projected) == []
    assert own_points(projected) == own_points(finished)


def test_metrics_tags_and_params_of_users_are_no_faults(projected: Sweep) -> None:
    log(projected, "training", "my_metric", 1, FUTURE_MS)
    log(projected, "training", "system/gpu", 1, FUTURE_MS)
    tag(projected, "training", "mine", "x")
    client(projected).log_param(run_of(projected, "training").info.run_id, "mine", "x")
    assert faults(projected) == []


def test_every_metric_of_a_run_is_known_as_one_of_this_project(projected: Sweep) -> None:
    """Otherwise, a point that the ledger has lost would count as a user's point."""
    names = {name for metrics in own_points(projected).values() for name in metrics}
    assert len(names) > 8
    assert [name for name in names if not is_own_metric(name)] == []
