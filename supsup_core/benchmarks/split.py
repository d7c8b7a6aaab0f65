"""Split tasks: each has some of the classes of a base to itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from supsup_core import seeding
from supsup_core.benchmarks.base import BENCHMARKS, Benchmark, Dataset, Images, Task
from supsup_core.errors import InputError


def crop_and_flip(x: Tensor, child: int, black: Tensor, padding: int = 4) -> Tensor:
    """Images (batch, channels, height, width), each cropped at random after padding with black, half of them mirrored.

    child: the seed of what is drawn. black: (1, channels, 1, 1), as it is among the images.
    """
    count, _, height, width = x.shape
    words = seeding.raw_bits(child, 3 * count).reshape(3, count)
    top, left = (torch.from_numpy((words[row] % np.uint64(2 * padding + 1)).astype(np.int64)) for row in (0, 1))
    mirrored = torch.from_numpy((words[2] >> np.uint64(63)).astype(bool))
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    columns[mirrored] = columns[mirrored].flip(1)
    padded = F.pad(x - black, (padding,) * 4) + black
    images = torch.arange(count)[:, None, None]
    return padded.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


class SplitTask(Task):
    """The images of some classes. `classes[i]` is labelled i, or keeps its label.

    augment_seed: training images are cropped and flipped at random, by this seed and the batch they are in.
    """

    def __init__(
        self, dataset: Dataset, classes: Sequence[int], keep_labels: bool, augment_seed: int | None = None
    ) -> None:
        self._dataset = dataset
        self._augment_seed = augment_seed
        labels = torch.full((int(dataset.train.labels.max()) + 1,), -1)
        labels[list(classes)] = torch.tensor(classes) if keep_labels else torch.arange(len(classes))
        self._labels = labels
        self._train = torch.nonzero(labels[dataset.train.labels] >= 0).flatten()
        self._test = torch.nonzero(labels[dataset.test.labels] >= 0).flatten()
        self.num_train, self.num_test = len(self._train), len(self._test)

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self.plain_train_batch(indices)
        return self.augment(x, indices), y

    def train_labels(self) -> Tensor:
        return self._labels[self._dataset.train.labels[self._train]]

    def plain_train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._batch(self._dataset.train, self._train[indices])

    def augment(self, x: Tensor, indices: Tensor) -> Tensor:
        if self._augment_seed is None:
            return x
        batch = hashlib.sha256(indices.numpy().tobytes()).hexdigest()
        black = self._dataset.normalise(torch.zeros(1, x.shape[1], 1, 1, dtype=torch.uint8))
        return crop_and_flip(x, seeding.child_seed(self._augment_seed, f"augment/{batch}"), black)

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
    output neurons. `augment: crop_flip` crops training images at random after padding them by 4, and mirrors half.
    """

    num_tasks: int = 5
    labels_per_task: int = 2
    order: Literal["drawn", "given"] = "drawn"
    labels: Literal["own", "base"] = "own"
    augment: Literal["none", "crop_flip"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        classes = self.source().num_labels
        if self.labels_per_task < 1:
            raise InputError(f"labels_per_task: must be at least 1, not {self.labels_per_task}")
        if self.augment != "none" and len(self.input_shape) != 3:
            raise InputError(f"augment: {self.base_name} has no photographs to crop and flip; leave it out")
        if self.num_tasks * self.labels_per_task > classes:
            raise InputError(
                f"num_tasks: {self.num_tasks} tasks of {self.labels_per_task} classes need "
                f"{self.num_tasks * self.labels_per_task}; {self.base_name} has {classes}, "
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
        augment_seed = None if self.augment == "none" else seeding.child_seed(seed, "augment", index)
        return SplitTask(dataset, classes, self.labels == "base", augment_seed)
