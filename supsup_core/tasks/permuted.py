"""Permuted tasks: all tasks show the same images, but each task permutes the pixels in its own fixed random order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.datasets.base import Dataset
from supsup_core.tasks.base import BENCHMARKS, AlteredTask, Benchmark, ReshapesImages, Task


def permute_pixels(order: Tensor, pixels: Tensor) -> Tensor:
    """Returns pixels[:, order], for pixels (batch, size) and a permutation `order` (size,), int64."""
    return pixels.index_select(1, order)  # torch gathers float32 columns six times as fast as uint8 columns


@final
@BENCHMARKS.register("permuted")
@dataclass(frozen=True, kw_only=True)
class Permuted(Benchmark, ReshapesImages):
    """Task i permutes all pixels in an order that is drawn from the run's seed and i (paper, section 4.2).

    The images are flattened.
    """

    def image_shape(self) -> tuple[int, ...]:
        return (math.prod(self.source().shape),)

    def task(self, index: int, dataset: Dataset, seed: int) -> Task:
        child = seeding.child_seed(seed, "permutation", index)
        order = torch.from_numpy(seeding.permutation(child, self.input_shape[0]))
        return AlteredTask(dataset, partial(permute_pixels, order))
