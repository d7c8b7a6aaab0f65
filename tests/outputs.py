"""Reading what a sweep left behind, for comparing one with another; and the processes of a running one."""

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
from pathlib import Path
from typing import Any, TypeVar

import mlflow
import psutil

from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.group_state import GroupState
from orchestrator.records.learned_tensors import read_mask
from orchestrator.records.ledger import LedgerReader
from orchestrator.tracking.mlflow_writer import tracking_uri

Found = TypeVar("Found", bound=Collection[Any])

TIMINGS = {"task_seconds", "images_per_second", "decision_latency"}
"""Metrics that are times, and so differ from run to run."""


def artifacts(output: Path) -> dict[str, str]:
    """SHA-256 of every artifact of an output."""
    files = (output / "store").glob("??/*.safetensors")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def trained(output: Path) -> list[dict[str, Any]]:
    """The payload of every shard that was really trained, not found, in the order of the ledgers."""
    rows = []
    for path in sorted(output.glob("sweeps/*/groups/*/ledger.sqlite")):
        with contextlib.closing(sqlite3.connect(path)) as db, contextlib.suppress(sqlite3.OperationalError):
            found = db.execute("SELECT payload FROM rows WHERE kind = 'trained' ORDER BY seq").fetchall()
            rows += [json.loads(payload) for (payload,) in found]
    return [row for row in rows if row["seconds"] is not None]


def scientific_points(output: Path, experiment: str) -> dict[str, list[tuple[str, int, float]]]:
    """Every point of every MLflow run, by uid, without those that are times; doubled ones show twice."""
    return points_of(mlflow.MlflowClient(tracking_uri(output)), experiment)


def points_of(client: mlflow.MlflowClient, experiment: str) -> dict[str, list[tuple[str, int, float]]]:
    """The same, as a client sees them."""
    found = {}
    for run in client.search_runs([client.get_experiment_by_name(experiment).experiment_id]):
        found[run.data.tags["supsup.uid"]] = sorted(
            (key, metric.step, metric.value)
            for key in run.data.metrics
            if key not in TIMINGS and not key.startswith("system/")
            for metric in client.get_metric_history(run.info.run_id, key)
        )
    return found


DECISION_TIMES = {"seconds", "latency"}
"""Fields of a decision that are times, and so differ from run to run."""


def nns_science(ledger: Path, whole_files: bool = True, versions: ArtifactStore | None = None) -> dict[str, Any]:
    """What an NNs run must give whatever happens on the way, to the bit: decisions with their slopes, books, results,
    the last masks and their files.

    A damaged file whose mask is sound is only found out when its scores are needed: then `whole_files` is False.
    `versions`: those of the masks, where they are not all beside the ledger.
    """
    with LedgerReader(ledger) as reader:
        state = GroupState().apply(reader.rows())
        slopes = [reader.attachment(row.seq) for row in state.decisions]
    versions = versions or ArtifactStore(ledger.parent / "masks")
    keys = state.due[max(state.due)]["keys"]
    return {
        "decisions": [{k: v for k, v in row.payload.items() if k not in DECISION_TIMES} for row in state.decisions],
        "slopes": slopes,
        "books": {n: row.payload["metrics"] for n, row in state.met.items()},
        "due": state.due,
        "masks": {key: read_mask(versions, key).numpy().tobytes() for key in keys},
        "files": {key: versions.get(key).sha256 for key in keys} if whole_files else None,
        "results": {key: row.payload["facts"] for key, row in state.evaluated.items()},
        "points": {point: row.payload for point, row in state.points.items()},
        "status": state.status,
    }


def the_ledger(output: Path) -> Path:
    """The ledger of an output with one training group."""
    (path,) = output.glob("sweeps/*/groups/*/ledger.sqlite")
    return path


def run_statuses(output: Path, experiment: str) -> set[str]:
    """The statuses of all MLflow runs."""
    client = mlflow.MlflowClient(tracking_uri(output))
    return {r.info.status for r in client.search_runs([client.get_experiment_by_name(experiment).experiment_id])}


def tables(output: Path) -> dict[str, list[list[str]]]:
    """The report's tables, rows sorted."""
    return {
        path.name: sorted(csv.reader(path.read_text().splitlines())) for path in output.glob("sweeps/*/report/*.csv")
    }


def below(pid: int, title: str = "") -> list[int]:
    """Processes below `pid` whose command line contains `title`."""
    found = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if title in " ".join(process.cmdline()):
                    found.append(process.pid)
    return found


def kill_all(pid: int) -> None:
    """kill -9 for a process and all below it, the top first so that nothing can be put in order."""
    for victim in [pid, *below(pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)


def wait_for(look: Callable[[], Found], seconds: float = 120) -> Found:
    """Wait until `look` finds something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")
