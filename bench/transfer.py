"""Accuracy gained by transfer from earlier tasks, over many seeds: GEM ResNet-18, trained on few batches.

    python -m bench.transfer --seeds 20 --processes 6 --device cuda

The tasks are those of sweeps/fig13_transfer.yaml at scale cpu. They are learned with `supsup_core` only, in a process
pool that trains several seeds at a time. The result of a seed is its mean accuracy over tasks 2 to 5, because the
first task has no earlier task. Differences to training without transfer are paired by seed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch

from supsup_core.datasets import Dataset
from supsup_core.kernels.matmul import set_algorithms
from supsup_core.methods import METHODS, Problem
from supsup_core.methods.learners import accuracy
from supsup_core.nets import NETS
from supsup_core.tasks import BENCHMARKS
from supsup_core.training.loop import TrainingRecipe

BASE = {
    "name": "image_folder", "folder": "cifar10-jpeg", "num_classes": 10, "side": 32,
    "mean": [0.491, 0.482, 0.447], "std": [0.247, 0.243, 0.262],
}  # fmt: skip
BENCHMARK = BENCHMARKS["split"](base=BASE, num_tasks=5, labels_per_task=2, augment="crop_flip")
RECIPE = TrainingRecipe(optimizer="adam", learning_rate=1e-3, schedule="cosine", weight_decay=1e-4)
WAYS = ("none", "masks", "scores")


def run(seed: int, batches: int, way: str, device: str, data: Dataset) -> list[float]:
    """Learns the tasks one after the other. Returns the accuracy of each task right after its training.

    way: how scores start, `none` (random), `masks` or `scores` of the earlier tasks.
    """
    method = METHODS["supsup"](mask="top_k", erdos_renyi=16, transfer=way)
    recipe = replace(RECIPE, num_batches=batches)
    problem = Problem(NETS["gem_resnet18"](num_outputs=2), BENCHMARK.input_shape, 2, recipe, seed, device)
    state, found = [], []
    for index in range(BENCHMARK.num_tasks):
        task = BENCHMARK.task(index, data, seed)
        state = [method.learn(problem, index, task, state if way != "none" else []).state]
        found.append(accuracy(method.learner(problem, state), task, 0))
    return found


def seed_runs(seed: int, sizes: Sequence[int], device: str) -> dict[str, list[float]]:
    """Returns the accuracies of all runs of a seed, under keys such as `16/masks`. sizes: batches per task."""
    torch.set_num_threads(1)
    set_algorithms()
    root = Path(os.environ["SUPSUP_DATA"]).absolute()
    data = BENCHMARK.source().resolved(root).load(root)
    return {f"{size}/{way}": run(seed, size, way, device, data) for size in sizes for way in WAYS}


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and its standard error in percent. values: shares in [0, 1]."""
    return 100 * statistics.fmean(values), 100 * statistics.stdev(values) / math.sqrt(len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    root = Path(os.environ["SUPSUP_DATA"]).absolute()
    BENCHMARK.source().resolved(root).load(root)  # decodes the images once, for all processes
    with ProcessPoolExecutor(asked.processes, get_context("spawn")) as pool:
        tasks = [pool.submit(seed_runs, seed, asked.batches, asked.device) for seed in range(asked.seeds)]
        runs = []
        for task in tasks:
            runs.append(task.result())
            print(f"{len(runs)} of {asked.seeds} seeds", json.dumps(runs[-1]), file=sys.stderr, flush=True)
    later = {name: [statistics.fmean(found[name][1:]) for found in runs] for name in runs[0]}
    for size in asked.batches:
        fresh = later[f"{size}/none"]
        for way in WAYS:
            mean, error = mean_and_error(later[f"{size}/{way}"])
            ahead = [one - other for one, other in zip(later[f"{size}/{way}"], fresh, strict=True)]
            gain, of_gain = mean_and_error(ahead)
            print(
                f"{size} batches, {way}: {mean:.2f} ± {error:.2f} %, "
                f"gain of transfer {gain:.2f} ± {of_gain:.2f}, positive in {sum(a > 0 for a in ahead)} of {len(ahead)} "
                "seeds"
            )


if __name__ == "__main__":
    main()
