"""How many workers one coordinator can keep busy: 10,000 shards on 64 simulated workers that only wait.

    python -m bench.cluster [SHARDS] [WORKERS] [SECONDS]

The planner, the coordinator, its ledger and the loop that drives them are the real ones. The simulated workers run in
four processes that never import torch. A worker waits SECONDS for each shard. `busy` is the share of the time in which
the coordinator computed. Then the benchmark measures the seconds and the peak memory of the commands `supsup plan`,
`status`, `gc` and `fsck` on this sweep. For `gc` and `fsck`, the store holds an artifact as large as a LeNet mask for
every shard.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as ready
from pathlib import Path
from typing import Any, cast

import psutil
import torch

from bench.waiting import serve
from orchestrator.base import environment
from orchestrator.coordination.coordinator import Coordinator, Progress
from orchestrator.coordination.messages import Job
from orchestrator.execution.drive import drive
from orchestrator.execution.launch import settings_of
from orchestrator.execution.open_coordinator import open_coordinator
from orchestrator.execution.worker_pool import WorkerPool, WorkerReply
from orchestrator.records.facts import TrainedFacts
from orchestrator.sweeps.sweep import open_sweep

PROCESSES = 4


class WaitingPool(WorkerPool):
    """A pool of simulated workers that only wait, spread over four processes."""

    def __init__(self, num_workers: int, seconds: float) -> None:
        self.num_workers = num_workers
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        for _ in range(PROCESSES):
            ours, theirs = context.Pipe()
            context.Process(target=serve, args=(theirs, seconds), daemon=True).start()
            self._pipes.append(ours)

    def absent(self) -> set[int]:
        return set()

    def submit(self, worker: int, job: Job) -> None:
        self._pipes[worker % PROCESSES].send((worker, job))

    def abandon(self, worker: int) -> None:
        return  # the benchmark cancels no task

    def wait(self, timeout: float) -> list[WorkerReply]:
        found = [pipe.recv() for pipe in ready(self._pipes, timeout) if isinstance(pipe, Connection)]
        return [WorkerReply(worker, reply) for worker, reply in found]


class Timed:
    """A proxy of a coordinator that adds up the seconds spent in its methods."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._coordinator, name)

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def measure(num_shards: int = 10_000, num_workers: int = 64, seconds: float = 0.5) -> dict[str, float]:
    """Returns the run's jobs per second, the coordinator's busy share and memory, and each command's cost."""
    with tempfile.TemporaryDirectory() as output:
        arguments = [
            "only=GNu", f"benchmark.num_tasks={num_shards}", f"evaluation.at=[{num_shards}]", "name=cluster",
            "benchmark.base=digits", f"output={output}",
        ]  # fmt: skip
        file = Path("sweeps/fig09_permuted_2500.yaml")
        started = time.perf_counter()
        sweep = open_sweep(file, arguments)
        (group,) = groups = sweep.plan()
        sweep.save(groups)
        planned = time.perf_counter() - started
        settings = settings_of(sweep, group, environment.describe(Path.cwd()), num_workers)
        opened = time.perf_counter()
        coordinator = Timed(open_coordinator(settings))
        opened = time.perf_counter() - opened
        pool = WaitingPool(num_workers, seconds)
        started = time.perf_counter()

        def show(progress: Progress) -> None:
            print(f"{progress.shards_done} shards, {progress.evaluations_done} evaluations", file=sys.stderr)

        assert drive(cast("Coordinator", coordinator), pool, show) == "done"
        wall = time.perf_counter() - started
        found = {
            "plan_s": planned,
            "open_s": opened,
            "wall_s": wall,
            "jobs_per_s": 2 * num_shards / wall,
            "wanted_per_s": num_workers / seconds,
            "busy": coordinator.seconds / wall,
            "ms_per_job": 1000 * coordinator.seconds / (2 * num_shards),
            "rss_mb": psutil.Process().memory_info().rss / 1e6,
            "ledger_mb": settings.folder.ledger.stat().st_size / 1e6,
        }
        commands = {
            "plan": ["plan", str(file), *arguments],
            "plan anew": ["plan", str(file), *arguments, "output=" + output + "/none"],
            "status": ["status", sweep.sweep_id, f"output={output}"],
            "gc": ["gc", f"output={output}"],
            "fsck": ["fsck", f"output={output}"],
        }
        for name in ("plan", "plan anew", "status"):
            found |= _timed(name, commands[name])
        mask = torch.randint(0, 256, (MASK_BYTES,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        for shard in group.shards:
            sweep.store.put(shard.key, {"state.mask": mask}, replace(FACTS, task=shard.task))
        for name in ("gc", "fsck"):
            found |= _timed(name, commands[name])
        return found


MASK_BYTES = 34_424
"""The size of a mask of LeNet 300-100 with 100 outputs."""

FACTS = TrainedFacts(
    task=0, accuracy=None, curve=((), ()), num_images=0, num_bytes=MASK_BYTES, weights_sha256="", device="cpu",
    threads=1, torch="", python="",
)  # fmt: skip


_WRAPPED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""A small program that runs a command and prints its peak memory in KiB. Without it, the peak of a child process would
include the memory of this large process, from which the child is forked."""


def _timed(name: str, arguments: list[str]) -> dict[str, float]:
    """Returns the median seconds of three runs of a command, and their peak memory in MB."""
    times, peak = [], 0.0
    for _ in range(3):
        started = time.perf_counter()
        command = [sys.executable, "-c", _WRAPPED, sys.executable, "-m", "orchestrator.cli", *arguments]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        times.append(time.perf_counter() - started)
        peak = max(peak, float(told) / 1000)
    return {f"{name} command": statistics.median(times), f"{name} peak_mb": peak}


if __name__ == "__main__":
    numbers = [float(argument) for argument in sys.argv[1:]]
    print(json.dumps(measure(*(int(n) for n in numbers[:2]), *numbers[2:]), indent=1))
