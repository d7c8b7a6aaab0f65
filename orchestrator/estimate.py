"""What a plan will cost, from what was measured: earlier shards of the same group, or a few real steps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import fmean, median

import torch

from orchestrator.config import Experiment
from orchestrator.state import GroupState
from supsup_core.masks import Threshold, draw_scores
from supsup_core.masks.codec import num_packed_bytes
from supsup_core.training import ScoreStep

_TIMED_STEPS = 10
_PROCESS_BYTES = 450 << 20
"""Memory of a worker before it holds anything: Python, torch and Ray, measured."""

_STATE_BYTES = 8
"""Bytes a weight of what NNs keeps to go on with a mask: its score and the optimiser's mean square."""


@dataclass(frozen=True)
class Estimate:
    """What is left to spend: seconds of wall time, bytes of disk, bytes of memory over all workers."""

    seconds: float
    disk_bytes: int
    memory_bytes: int
    basis: str


def seconds_per_shard(experiment: Experiment, state: GroupState) -> tuple[float, str]:
    """Seconds one worker needs for one task, and how that is known."""
    measured = state.shard_seconds()
    if measured:
        return fmean(measured), f"the mean of {len(measured)} shards already trained"
    torch.set_num_threads(1)
    problem = experiment.problem("cpu")
    size = experiment.training.batch_size
    x = torch.zeros(size, *problem.input_shape).normal_(generator=torch.Generator().manual_seed(0))
    y = torch.arange(size) % problem.num_labels
    step = ScoreStep(problem.net, problem.weights, draw_scores(problem.layers, 0, 0), Threshold(), experiment.training)
    times = []
    for _ in range(_TIMED_STEPS):
        started = time.perf_counter()
        step(x, y)
        times.append(time.perf_counter() - started)
    return median(times) * experiment.training.num_batches, f"{_TIMED_STEPS} training steps timed on this machine"


def estimate_group(
    experiment: Experiment, state: GroupState, left: tuple[int, int], total: int, num_workers: int
) -> Estimate:
    """The cost of what is left of one group. left: shards and evaluations to do; total: all its shards.

    Evaluations count by their measured mean, or as a tenth of a shard while none is known.
    """
    per_shard, basis = seconds_per_shard(experiment, state)
    measured = [row.payload["seconds"] for row in state.evaluated.values() if row.payload["seconds"]]
    per_evaluation = fmean(measured) if measured else per_shard / 10
    shards, evaluations = left
    allocation = experiment.allocation
    streams = allocation.stream.num_streams if allocation else num_workers
    num_weights = sum(layer.size for layer in experiment.problem("cpu").layers)
    mask = num_packed_bytes(num_weights)
    bank = total * mask + 4 * num_weights
    gradients = 256 << 20 if not experiment.scenario.given_at_inference else 0
    pixels = 70_000
    for extent in experiment.benchmark.source().shape:
        pixels *= extent
    kept = mask + 1024 if allocation is None else mask + 1024 + _STATE_BYTES * num_weights
    return Estimate(
        seconds=shards * per_shard / min(num_workers, streams) + evaluations * per_evaluation / num_workers,
        disk_bytes=shards * kept + evaluations * 4096,
        memory_bytes=num_workers * (_PROCESS_BYTES + bank + gradients + pixels + 24 * num_weights),
        basis=basis,
    )
