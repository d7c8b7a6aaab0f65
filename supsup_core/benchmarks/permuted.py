"""Permuted tasks: each shows the same images with the pixels in a fixed random order of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.benchmarks.base import BENCHMARKS, Benchmark, Dataset, Images, Task


class PermutedTask(Task):
    """One permutation of the pixels of a dataset. Images come out flat."""

    def __init__(self, dataset: Dataset, order: Tensor) -> None:
        self._dataset = dataset
        self._order = order
        self.num_train = len(dataset.train.labels)
        self.num_test = len(dataset.test.labels)

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._batch(self._dataset.train, indices)

    def test_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._batch(self._dataset.test, indices)

    def _batch(self, images: Images, indices: Tensor) -> tuple[Tensor, Tensor]:
        rows = self._dataset.normalise(images.pixels.index_select(0, indices).flatten(1))
        # Columns are gathered as floats: torch does that six times as fast as on bytes.
        return rows.index_select(1, self._order), images.labels.index_select(0, indices)


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
