"""Split tasks: the classes of a base dataset are divided among the tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.datasets.augmentation import AUGMENTATIONS, crop_centre
from supsup_core.datasets.base import Dataset, Images
from supsup_core.errors import InputError
from supsup_core.field_limits import limited
from supsup_core.registry import ChecksFields
from supsup_core.tasks.base import BENCHMARKS, Augments, Benchmark, KnowsLabels, Relabels, ReshapesImages, Task


@final
class SplitTask(Task, Augments, KnowsLabels):
    """All images of the given classes. Class classes[i] gets the label i, or keeps its label if `keep_labels` is True.

    crop: the side in pixels of the square that an image is cropped to; None does not crop. The square is in the centre,
    unless augmentation chooses another position. augment: the name of the augmentation, and a seed; None means no
    augmentation. The seed and the batch's indices together determine all random draws for the batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        classes: Sequence[int],
        keep_labels: bool,
        crop: int | None = None,
        augment: tuple[str, int] | None = None,
    ) -> None:
        self._dataset = dataset
        self._crop = crop
        self._augment = augment
        labels = torch.full((int(dataset.train.labels.max()) + 1,), -1)
        labels[list(classes)] = torch.tensor(classes) if keep_labels else torch.arange(len(classes))
        self._labels = labels
        self._train = torch.nonzero(labels[dataset.train.labels] >= 0).flatten()
        self._test = torch.nonzero(labels[dataset.test.labels] >= 0).flatten()
        self.num_train, self.num_test = len(self._train), len(self._test)

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        if self._augment is None:
            return self.unaugmented_batch(indices)
        x, y = self._batch(self._dataset.train, self._train[indices])
        return self._augmented(x, indices), y

    def known_train_labels(self) -> Tensor:
        return self._labels[self._dataset.train.labels[self._train]]

    def unaugmented_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self._batch(self._dataset.train, self._train[indices])
        return crop_centre(x, self._crop), y

    def augment_images(self, x: Tensor, indices: Tensor) -> Tensor:
        return x if self._augment is None else self._augmented(x, indices)

    def _augmented(self, x: Tensor, indices: Tensor) -> Tensor:
        assert self._augment is not None
        name, seed = self._augment
        batch = hashlib.sha256(indices.numpy().tobytes()).hexdigest()
        black = self._dataset.normalise(torch.zeros(1, x.shape[1], 1, 1, dtype=torch.uint8))
        child = seeding.child_seed(seed, f"augment/{batch}")
        return AUGMENTATIONS[name](x, child, black, self._crop or x.shape[-1])

    def test_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self._batch(self._dataset.test, self._test[indices])
        return crop_centre(x, self._crop), y

    def _batch(self, images: Images, indices: Tensor) -> tuple[Tensor, Tensor]:
        pixels, labels = images.gather(indices)
        return self._dataset.normalise(pixels), self._labels[labels]


@final
@BENCHMARKS.register("split")
@dataclass(frozen=True, kw_only=True)
class Split(Benchmark, ReshapesImages, Relabels, ChecksFields):
    """Divides the classes of the base dataset: each task has `labels_per_task` classes (paper, section 4.1).

    `order`: the order in which classes are assigned to tasks. `drawn`: a random order, drawn from the run's seed.
    `given`: ascending class numbers. `fixed`: the order of SplitImageNet, numpy's RandomState(1).permutation(1000) for
    1000 classes. With `labels: own`, the classes of a task are labelled from 0. With `labels: base`, classes keep their
    labels, and every task has as many labels as the base dataset. `crop`: the side, in pixels, of the central square
    that an image is cropped to; None does not crop. `augment`: the random augmentation of training images
    (datasets.augmentation).
    """

    num_tasks: int = 5
    labels_per_task: int = limited(2, least=1)
    order: Literal["drawn", "given", "fixed"] = "drawn"
    labels: Literal["own", "base"] = "own"
    crop: int | None = None
    augment: Literal["none", "crop_flip", "resized_crop_flip"] = "none"

    def check_fields(self) -> None:
        classes = self.source().num_labels
        shape = self.source().shape
        for key in ("augment", "crop"):
            if getattr(self, key) not in (None, "none") and len(shape) != 3:
                raise InputError(
                    f"{key}: the images of {self.base_name} have no colours, and only colour images can be cropped and "
                    "flipped; remove this key"
                )
        if self.crop is not None and not 0 < self.crop <= shape[-1]:
            raise InputError(f"crop: must be from 1 to {shape[-1]}, the side of the images, not {self.crop}")
        if self.num_tasks * self.labels_per_task > classes:
            raise InputError(
                f"num_tasks: {self.num_tasks} tasks of {self.labels_per_task} classes need "
                f"{self.num_tasks * self.labels_per_task} classes; {self.base_name} has {classes}, "
                f"enough for {classes // self.labels_per_task} tasks; lower num_tasks or labels_per_task"
            )

    def image_shape(self) -> tuple[int, ...]:
        shape = self.source().shape
        return shape if self.crop is None else (shape[0], self.crop, self.crop)

    def labels_of_a_task(self) -> int:
        return self.labels_per_task if self.labels == "own" else self.source().num_labels

    def task(self, index: int, dataset: Dataset, seed: int) -> Task:
        count = self.source().num_labels
        order = np.arange(count)
        if self.order == "drawn":
            order = seeding.permutation(seeding.child_seed(seed, "split"), count)
        elif self.order == "fixed":
            order = np.random.RandomState(1).permutation(count)
        first = index * self.labels_per_task
        classes = order[first : first + self.labels_per_task].tolist()
        augment = None if self.augment == "none" else (self.augment, seeding.child_seed(seed, "augment", index))
        return SplitTask(dataset, classes, self.labels == "base", self.crop, augment)
