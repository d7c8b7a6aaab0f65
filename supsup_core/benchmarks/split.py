"""Split tasks: each has some of the classes of a base to itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.benchmarks.base import BENCHMARKS, Benchmark, Dataset, Images, Task
from supsup_core.errors import InputError


class SplitTask(Task):
    """The images of some classes. `classes[i]` is labelled i, or keeps its label."""

    def __init__(self, dataset: Dataset, classes: Sequence[int], keep_labels: bool) -> None:
        self._dataset = dataset
        labels = torch.full((int(dataset.train.labels.max()) + 1,), -1)
        labels[list(classes)] = torch.tensor(classes) if keep_labels else torch.arange(len(classes))
        self._labels = labels
        self._train = torch.nonzero(labels[dataset.train.labels] >= 0).flatten()
        self._test = torch.nonzero(labels[dataset.test.labels] >= 0).flatten()
        self.num_train, self.num_test = len(self._train), len(self._test)

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._batch(self._dataset.train, self._train[indices])

    def test_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._batch(self._dataset.test, self._test[indices])

    def _batch(self, images: Images, indices: Tensor) -> tuple[Tensor, Tensor]:
        x = self._dataset.normalise(images.pixels.index_select(0, indices))
        return x, self._labels[images.labels.index_select(0, indices)]


@BENCHMARKS.register("split")
@dataclass(frozen=True, kw_only=True)
class Split(Benchmark):
    """Each task has `labels_per_task` classes of the base that no other has (paper, section 4.1).

    `order`: which classes come together is `drawn` from the seed, or `given` by their numbers. With `labels: own`
    the classes of a task are labelled from 0; with `base` they keep their labels, and every task has the base's
    output neurons.
    """

    num_tasks: int = 5
    labels_per_task: int = 2
    order: Literal["drawn", "given"] = "drawn"
    labels: Literal["own", "base"] = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        classes = self.source().num_labels
        if self.labels_per_task < 1:
            raise InputError(f"labels_per_task: must be at least 1, not {self.labels_per_task}")
        if self.num_tasks * self.labels_per_task > classes:
            raise InputError(
                f"num_tasks: {self.num_tasks} tasks of {self.labels_per_task} classes need "
                f"{self.num_tasks * self.labels_per_task}; {self.base} has {classes}, "
                f"enough for {classes // self.labels_per_task} tasks"
            )

    @property
    def num_labels(self) -> int:
        return self.labels_per_task if self.labels == "own" else self.source().num_labels

    def task(self, index: int, dataset: Dataset, seed: int) -> Task:
        count = self.source().num_labels
        order = np.arange(count)
        if self.order == "drawn":
            order = seeding.permutation(seeding.child_seed(seed, "split"), count)
        first = index * self.labels_per_task
        classes = order[first : first + self.labels_per_task].tolist()
        return SplitTask(dataset, classes, self.labels == "base")
