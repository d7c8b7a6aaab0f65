"""Permuted tasks: each shows the same images with the pixels in a fixed random order of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.datasets.base import Dataset
from supsup_core.tasks.base import BENCHMARKS, AlteredTask, Benchmark, Task


class PermutedTask(AlteredTask):
    """One permutation of the pixels of a dataset. Images come out flat."""

    def __init__(self, dataset: Dataset, order: Tensor) -> None:
        super().__init__(dataset)
        self._order = order

    def alter(self, pixels: Tensor) -> Tensor:
        # Columns are gathered as floats: torch does that six times as fast as on bytes.
        return pixels.index_select(1, self._order)


@BENCHMARKS.register("permuted")
@dataclass(frozen=True, kw_only=True)
class Permuted(Benchmark):
    """Task i permutes all pixels by an order drawn from (run seed, i) (paper, section 4.2)."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (math.prod(self.source().shape),)

    def task(self, index: int, dataset: Dataset, seed: int) -> Task:
        child = seeding.child_seed(seed, "permutation", index)
        return PermutedTask(dataset, torch.from_numpy(seeding.permutation(child, self.input_shape[0])))
