"""Reads the output of a sweep, so that tests can compare two; and finds or kills the processes of a running one."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import mlflow
import psutil

from orchestrator.base.output_folder import GroupFolder, OutputFolder
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.group_state import GroupState
from orchestrator.records.learned_tensors import read_mask
from orchestrator.records.ledger import LedgerReader
from orchestrator.records.rows import SegmentDecided
from orchestrator.tracking.mlflow_address import tracking_uri

Found = TypeVar("Found", bound=Collection[Any])

TIMINGS = {"task_seconds", "images_per_second", "decision_latency"}
"""Metrics that are times, and so differ from run to run."""


def artifacts(output: Path) -> dict[str, str]:
    """SHA-256 of every artifact of an output."""
    files = OutputFolder(output).store.files()
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def trained(output: Path) -> list[dict[str, Any]]:
    """The payload of every shard that was really trained, not found in the store, in the order of the ledgers."""
    rows = []
    for path in sorted(output.glob("sweeps/*/groups/*/ledger.sqlite")):
        with contextlib.closing(sqlite3.connect(path)) as db, contextlib.suppress(sqlite3.OperationalError):
            found = db.execute("SELECT payload FROM rows WHERE kind = 'trained' ORDER BY seq").fetchall()
            rows += [json.loads(payload) for (payload,) in found]
    return [row for row in rows if row["seconds"] is not None]


def scientific_points(output: Path, experiment: str) -> dict[str, list[tuple[str, int, float]]]:
    """Every point of every MLflow run, by uid, without times. A point that was written twice is there twice."""
    return points_of(mlflow.MlflowClient(tracking_uri(OutputFolder(output).mlflow)), experiment)


def points_of(client: mlflow.MlflowClient, experiment: str) -> dict[str, list[tuple[str, int, float]]]:
    """The same points, as an MLflow client reads them."""
    found = {}
    for run in client.search_runs([client.get_experiment_by_name(experiment).experiment_id]):
        found[run.data.tags["supsup.uid"]] = sorted(
            (key, metric.step, metric.value)
            for key in run.data.metrics
            if key not in TIMINGS and not key.startswith("system/")
            for metric in client.get_metric_history(run.info.run_id, key)
        )
    return found


def decisions(state: GroupState) -> list[SegmentDecided]:
    """The decisions of an NNs run with their times as 0, which differ from run to run."""
    return [replace(row.event, seconds=0.0, latency=0.0) for row in state.decisions]


def nns_science(ledger: Path, whole_files: bool = True, versions: ArtifactStore | None = None) -> dict[str, Any]:
    """The results of an NNs run that no crash may change by a bit: decisions with their slopes, allocation metrics,
    evaluations, the last masks and their files.

    whole_files: compare the files of the masks too. A damaged file whose mask is sound is detected only when its scores
    are needed. versions: of the masks, where they are not all beside the ledger.
    """
    with LedgerReader(ledger) as reader:
        state = GroupState().apply(reader.rows())
        slopes = [reader.attachment(row.seq) for row in state.decisions]
    versions = versions or ArtifactStore(GroupFolder(ledger.parent).masks)
    keys = state.due[max(state.due)].keys
    return {
        "decisions": decisions(state),
        "slopes": slopes,
        "met": {n: row.event.metrics for n, row in state.met.items()},
        "due": state.due,
        "masks": {key: read_mask(versions, key).numpy().tobytes() for key in keys},
        "files": {key: versions.get(key).sha256 for key in keys} if whole_files else None,
        "results": {key: row.event.facts for key, row in state.evaluated.items()},
        "points": {point: row.event for point, row in state.points.items()},
        "status": state.status,
    }


def the_ledger(output: Path) -> Path:
    """The ledger of an output with one training group."""
    (path,) = output.glob("sweeps/*/groups/*/ledger.sqlite")
    return path


def run_statuses(output: Path, experiment: str) -> set[str]:
    """The statuses of all MLflow runs."""
    client = mlflow.MlflowClient(tracking_uri(OutputFolder(output).mlflow))
    return {r.info.status for r in client.search_runs([client.get_experiment_by_name(experiment).experiment_id])}


def tables(output: Path) -> dict[str, list[list[str]]]:
    """The report's tables, rows sorted."""
    return {
        path.name: sorted(csv.reader(path.read_text().splitlines())) for path in output.glob("sweeps/*/report/*.csv")
    }


def below(pid: int, title: str = "") -> list[int]:
    """The processes below `pid` whose command line contains `title`."""
    found = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if title in " ".join(process.cmdline()):
                    found.append(process.pid)
    return found


def kill_all(pid: int) -> None:
    """Kill -9 a process and all below it, the top first so that it cannot react to the death of the others."""
    for victim in [pid, *below(pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)


def wait_for(look: Callable[[], Found], seconds: float = 120) -> Found:
    """Wait until `look` returns something that is not empty."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing was found within {seconds:.0f} s")
