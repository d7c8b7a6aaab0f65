"""Two workers against one, and what the platform itself takes, from the ledger's own clock.

Forty PermutedMNIST tasks with one worker and with two, first shard's start to last shard's end; then a hundred tasks
with two: how long workers waited between their shards (coordinator, ledger, MLflow), and how long the store took to
write them, as a share of the seconds of training. Start-up is in neither.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.ledger import LedgerReader

ROUNDS, TASKS, MANY = 3, 40, 100


@contextmanager
def swept(num_tasks: int, num_workers: int) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """The output of a sweep of so many tasks, and what its ledger says of each."""
    with tempfile.TemporaryDirectory() as output:
        command = [
            sys.executable, "-m", "orchestrator.cli", "sweep", "sweeps/fig07_permuted_lenet.yaml",
            f"benchmark.num_tasks={num_tasks}", "only=SupSup", f"evaluation.at=[{num_tasks}]",
            "--workers", str(num_workers), f"output={output}",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        (ledger,) = Path(output).glob("sweeps/*/groups/*/ledger.sqlite")
        with LedgerReader(ledger) as reader:
            rows = [row.payload for row in reader.rows() if row.kind == "trained"]
        assert len(rows) == num_tasks
        yield Path(output), rows


def span(num_workers: int) -> float:
    """Seconds from the first shard's start to the last one's end."""
    with swept(TASKS, num_workers) as (_, rows):
        end = max(row["started_ms"] + 1000 * row["seconds"] for row in rows)
        return float(end - min(row["started_ms"] for row in rows)) / 1000


def platform() -> dict[str, float]:
    """Of a hundred tasks: seconds that workers waited between shards, that writing them took, and of training."""
    with swept(MANY, 2) as (output, rows):
        waited = 0.0
        for worker in {row["worker"] for row in rows}:
            own = sorted((row["started_ms"] / 1000, row["seconds"]) for row in rows if row["worker"] == worker)
            waited += sum(max(0.0, after - before - took) for (before, took), (after, _) in itertools.pairwise(own))
        store, again = ArtifactStore(output / "store"), ArtifactStore(output / "again")
        artifacts = [store.require(row["key"]) for row in rows]
        started = time.perf_counter()
        for artifact in artifacts:
            again.put(artifact.key, artifact.tensors, artifact.facts)
        writing = time.perf_counter() - started
    training = sum(row["seconds"] for row in rows) - writing
    return {"waited_s": waited, "writing_s": writing, "training_s": training, "share": (waited + writing) / training}


def measure() -> dict[str, Any]:
    """Medians over alternating rounds, and the median of their ratios; the platform's share."""
    pairs = [(span(1), span(2)) for _ in range(ROUNDS)]
    one, two = zip(*pairs, strict=True)
    ratio = statistics.median(a / b for a, b in pairs)
    workers = {"one_worker_s": statistics.median(one), "two_workers_s": statistics.median(two), "ratio": ratio}
    return {"workers": workers, "platform": platform()}
