"""Twenty PermutedMNIST tasks with two workers against one: first shard's start to last shard's end.

Whole sweeps through the command line, each into an output of its own; the times are the ledger's.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from orchestrator.ledger import LedgerReader

ROUNDS, TASKS = 3, 20


def seconds(num_workers: int) -> float:
    """Seconds from the first shard's start to the last one's end."""
    with tempfile.TemporaryDirectory() as output:
        command = [
            sys.executable, "-m", "orchestrator.cli", "sweep", "sweeps/fig07_permuted_lenet.yaml",
            f"benchmark.num_tasks={TASKS}", "only=SupSup", f"evaluation.at=[{TASKS}]",
            "--workers", str(num_workers), f"output={output}",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        (ledger,) = Path(output).glob("sweeps/*/groups/*/ledger.sqlite")
        with LedgerReader(ledger) as reader:
            rows = [row.payload for row in reader.rows() if row.kind == "trained"]
    assert len(rows) == TASKS
    end = max(row["started_ms"] + 1000 * row["seconds"] for row in rows)
    return float(end - min(row["started_ms"] for row in rows)) / 1000


def measure() -> dict[str, float]:
    """Medians over alternating rounds, and the median of their ratios."""
    pairs = [(seconds(1), seconds(2)) for _ in range(ROUNDS)]
    one, two = zip(*pairs, strict=True)
    ratio = statistics.median(a / b for a, b in pairs)
    return {"one_worker_s": statistics.median(one), "two_workers_s": statistics.median(two), "ratio": ratio}


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
