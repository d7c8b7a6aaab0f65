"""Speed of two workers compared with one, and the overhead of the platform, from the times in the ledger.

First, forty PermutedMNIST tasks run with one worker and with two, timed from the start of the first shard to the end of
the last. Then a hundred tasks run with two workers. The overhead is the time that workers waited between their shards
(for the coordinator, the ledger and MLflow) plus the time to write the artifacts, as a share of the training time. The
start of Ray is excluded.
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

from bench.ledgers import events, rows_of, the_group
from orchestrator.base.output_folder import ArtifactFolder, OutputFolder
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.rows import ShardTrained

ROUNDS, TASKS, MANY = 3, 40, 100


@contextmanager
def swept(num_tasks: int, num_workers: int) -> Iterator[tuple[Path, list[ShardTrained]]]:
    """Runs a sweep in a temporary output. Yields the output and the `ShardTrained` events of its tasks."""
    with tempfile.TemporaryDirectory() as output:
        command = [
            sys.executable, "-m", "orchestrator.cli", "sweep", "sweeps/fig07_permuted_lenet.yaml",
            f"benchmark.num_tasks={num_tasks}", "only=SupSup", f"evaluation.at=[{num_tasks}]",
            "--workers", str(num_workers), f"output={output}",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        shards = events(rows_of(the_group(Path(output))), ShardTrained)
        assert len(shards) == num_tasks
        yield Path(output), shards


def span(num_workers: int) -> float:
    """Returns the seconds from the start of the first shard to the end of the last."""
    with swept(TASKS, num_workers) as (_, shards):
        spans = [_span(shard) for shard in shards]
        return max(end for _, end in spans) - min(start for start, _ in spans)


def _span(shard: ShardTrained) -> tuple[float, float]:
    """Returns the start and the end of a shard's training, in Unix seconds."""
    assert shard.started_ms is not None
    assert shard.seconds is not None
    return shard.started_ms / 1000, shard.started_ms / 1000 + shard.seconds


def platform() -> dict[str, float]:
    """Returns the seconds that workers waited between shards, wrote artifacts and trained, and the overhead's share."""
    with swept(MANY, 2) as (output, shards):
        waited = 0.0
        for worker in {shard.worker for shard in shards}:
            own = sorted(_span(shard) for shard in shards if shard.worker == worker)
            waited += sum(max(0.0, after - end) for (_, end), (after, _) in itertools.pairwise(own))
        store = ArtifactStore(OutputFolder(output).store)
        again = ArtifactStore(ArtifactFolder(output / "again"))
        artifacts = [store.require(shard.key) for shard in shards]
        started = time.perf_counter()
        for artifact in artifacts:
            again.put(artifact.key, artifact.tensors, artifact.facts)
        writing = time.perf_counter() - started
    training = sum(shard.seconds or 0 for shard in shards) - writing
    return {"waited_s": waited, "writing_s": writing, "training_s": training, "share": (waited + writing) / training}


def measure() -> dict[str, Any]:
    """Returns the median seconds with one and two workers, their median ratio, and the platform's overhead."""
    pairs = [(span(1), span(2)) for _ in range(ROUNDS)]
    one, two = zip(*pairs, strict=True)
    ratio = statistics.median(a / b for a, b in pairs)
    workers = {"one_worker_s": statistics.median(one), "two_workers_s": statistics.median(two), "ratio": ratio}
    return {"workers": workers, "platform": platform()}
