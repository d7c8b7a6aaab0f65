"""Total time of twenty PermutedMNIST tasks, trained and evaluated in GNu: the platform compared with `bench.naive`.

Both train LeNet 300-100 with 100 outputs for 1000 batches of 128 images per task. The platform uses two workers. The
naive process uses torch's default number of threads. The first image of each group of 128 test images decides the task
for the group. The platform runs in float32 and in bfloat16.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.ledgers import events, rows_of, the_group
from orchestrator.records.rows import PointCompleted, ShardTrained

ROUNDS, TASKS = 3, 20


def ours(*changes: str) -> dict[str, Any]:
    """Runs a sweep from the command to its report.

    Returns its seconds, its accuracy in percent, the training seconds per worker, and the seconds before the first
    task. changes: overrides of the sweep file.
    """
    with tempfile.TemporaryDirectory() as output:
        command = [
            sys.executable, "-m", "orchestrator.cli", "sweep", "sweeps/fig07_permuted_lenet.yaml", "only=SupSup, H",
            f"benchmark.num_tasks={TASKS}", f"evaluation.at=[{TASKS}]", "inference.strict_images=0",
            f"output={output}", *changes,
        ]  # fmt: skip
        started, launched = time.perf_counter(), time.time()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - started
        rows = rows_of(the_group(Path(output)))
    (point,) = events(rows, PointCompleted)
    trained = events(rows, ShardTrained)
    assert len(trained) == TASKS
    return {
        "seconds": seconds,
        "accuracy": 100 * point.metrics["accuracy"],
        "training_seconds": sum(shard.seconds or 0 for shard in trained) / 2,
        "start_seconds": min(shard.started_ms or 0 for shard in trained) / 1000 - launched,
    }


def naive() -> dict[str, Any]:
    """Runs the same tasks with `bench.naive`; returns its accuracy and seconds."""
    command = [sys.executable, "-m", "bench.naive", str(TASKS)]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"seconds": time.perf_counter() - started}


PEERS = {"ours": ours, "ours, bfloat16": lambda: ours("training.precision=bfloat16"), "naive": naive}


def measure(rounds: int = ROUNDS) -> dict[str, Any]:
    """Returns each peer's median seconds and accuracy, and its median time divided by the platform's."""
    runs = [{name: peer() for name, peer in PEERS.items()} for _ in range(rounds)]
    found: dict[str, Any] = {}
    for name in PEERS:
        ratios = [run[name]["seconds"] / run["ours"]["seconds"] for run in runs]
        found[name] = {
            "seconds": statistics.median(run[name]["seconds"] for run in runs),
            "training_seconds": statistics.median(run[name]["training_seconds"] for run in runs),
            "start_seconds": statistics.median(run[name].get("start_seconds", 0.0) for run in runs),
            "accuracy": runs[0][name]["accuracy"],
            "times ours": statistics.median(ratios),
        }
    return found
