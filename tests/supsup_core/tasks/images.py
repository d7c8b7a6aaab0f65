"""Reads the first training images of tasks, so that tests can compare tasks."""

import torch

from supsup_core.datasets import Dataset
from supsup_core.tasks import Benchmark


def seen(benchmark: Benchmark, digits: Dataset, seeds: int) -> set[bytes]:
    return {
        benchmark.task(index, digits, seed).train_batch(torch.arange(20))[0].numpy().tobytes()
        for index in range(4)
        for seed in range(seeds)
    }
