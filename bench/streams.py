"""Speed of look-ahead training: NNs with one stream on two workers, compared with one worker.

The run learns twelve permutations of MNIST as in figure 9: LeNet 300-100 with 500 outputs, 1000 batches and ten
decisions per task. The time per task is measured from the first commit to the last, so the start of Ray and the
evaluation are excluded.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.ledgers import committed, rows_of, the_group
from orchestrator.records.rows import RoundsCommitted

ROUNDS, TASKS = 3, 12


def seconds_per_task(num_workers: int) -> float:
    """Runs the sweep with this number of workers; returns the seconds per task (ten rounds)."""
    with tempfile.TemporaryDirectory() as output:
        command = [
            sys.executable, "-m", "orchestrator.cli", "sweep", "sweeps/fig09_permuted_2500.yaml", "only=NNs",
            f"benchmark.num_tasks={TASKS}", f"evaluation.at=[{TASKS}]",
            "--workers", str(num_workers), f"output={output}",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        commits = committed(rows_of(the_group(Path(output))), RoundsCommitted)
    first, last = commits[0], commits[-1]
    rounds = last.event.round - first.event.round
    return float(last.time_ms - first.time_ms) / 1000 * 10 / float(rounds)


def measure() -> dict[str, Any]:
    """Returns the median seconds per task with one and with two workers, and the median ratio of paired runs."""
    pairs = [(seconds_per_task(1), seconds_per_task(2)) for _ in range(ROUNDS)]
    one, two = zip(*pairs, strict=True)
    ratio = statistics.median(a / b for a, b in pairs)
    return {"one_worker_s": statistics.median(one), "two_workers_s": statistics.median(two), "ratio": ratio}
