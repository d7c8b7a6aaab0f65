"""Reads outputs of sweeps, so that tests can compare them, and finds or kills the processes of a running sweep."""

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
from orchestrator.records.ledgers.ledger import LedgerReader
from orchestrator.records.rows import SegmentDecided
from orchestrator.tracking.mlflow_address import tracking_uri

Found = TypeVar("Found", bound=Collection[Any])

TIMINGS = {"task_seconds", "images_per_second", "decision_latency"}
"""Metrics that measure time or speed, and so differ between runs."""


def artifacts(output: Path) -> dict[str, str]:
    """Returns the SHA-256 of every artifact of an output, by file name."""
    files = OutputFolder(output).store.files()
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def trained(output: Path) -> list[dict[str, Any]]:
    """Returns the row payload of every shard that was trained and not found in the store, in ledger order.

    Leaves out ledgers that are damaged or have no tables yet.
    """
    rows = []
    for path in sorted(output.glob("sweeps/*/groups/*/ledger.sqlite")):
        with contextlib.closing(sqlite3.connect(path)) as db, contextlib.suppress(sqlite3.DatabaseError):
            found = db.execute("SELECT payload FROM rows WHERE kind = 'trained' ORDER BY seq").fetchall()
            rows += [json.loads(payload) for (payload,) in found]
    return [row for row in rows if row["seconds"] is not None]


def scientific_points(output: Path, experiment: str) -> dict[str, list[tuple[str, int, float]]]:
    """Returns every MLflow point, by the uid of its run, without timings. A point written twice appears twice."""
    return points_of(mlflow.MlflowClient(tracking_uri(OutputFolder(output).mlflow)), experiment)


def points_of(client: mlflow.MlflowClient, experiment: str) -> dict[str, list[tuple[str, int, float]]]:
    """Returns the same points as `scientific_points`, read with an MLflow client."""
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
    """Returns the decisions of an NNs run. Their times are set to 0, because times differ between runs."""
    return [replace(row.event, seconds=0.0, latency=0.0) for row in state.decisions]


def nns_science(ledger: Path, whole_files: bool = True, versions: ArtifactStore | None = None) -> dict[str, Any]:
    """Returns the results of an NNs run that no crash may change: decisions with slopes, allocation metrics,
    evaluations, the last masks and their files.

    whole_files: include the bytes of the mask files. A file with damaged scores but an intact mask is detected only
    when the scores are needed. versions: the store of the mask versions, if some are not beside the ledger.
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
    """Returns the path of the only ledger of an output."""
    (path,) = output.glob("sweeps/*/groups/*/ledger.sqlite")
    return path


def run_statuses(output: Path, experiment: str) -> set[str]:
    """Returns the statuses of all MLflow runs of an experiment."""
    client = mlflow.MlflowClient(tracking_uri(OutputFolder(output).mlflow))
    return {r.info.status for r in client.search_runs([client.get_experiment_by_name(experiment).experiment_id])}


def tables(output: Path) -> dict[str, list[list[str]]]:
    """Returns the report's tables by file name, with sorted rows."""
    return {
        path.name: sorted(csv.reader(path.read_text().splitlines())) for path in output.glob("sweeps/*/report/*.csv")
    }


def below(pid: int, title: str = "") -> list[int]:
    """Returns the ids of all descendants of process `pid` whose command line contains `title`."""
    found = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if title in " ".join(process.cmdline()):
                    found.append(process.pid)
    return found


def kill_all(pid: int) -> None:
    """Kills a process and all its descendants with SIGKILL. The process itself is killed first, so that it cannot react
    to the death of the others."""
    for victim in [pid, *below(pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)


def wait_for(look: Callable[[], Found], seconds: float = 120) -> Found:
    """Waits until `look` returns a non-empty value, and returns it; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"still nothing to find after {seconds:.0f} s")
