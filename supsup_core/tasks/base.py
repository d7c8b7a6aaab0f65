"""Tasks, and benchmarks: sequences of tasks made from a dataset."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, final

import torch
from torch import Tensor

from supsup_core.datasets.base import Base, Dataset, Images, base_from, base_node
from supsup_core.field_limits import MOST_TASKS, check_limits, limited
from supsup_core.later_fields import identity_fields
from supsup_core.registry import ChecksFields, Registry


class Augments(ABC):
    """Interface of a task that augments its training images at random."""

    @abstractmethod
    def unaugmented_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `train_batch(indices)` without any augmentation."""

    @abstractmethod
    def augment_images(self, x: Tensor, indices: Tensor) -> Tensor:
        """Applies to images x (batch, *shape) the augmentation that `train_batch(indices)` applies to its images."""


class KnowsLabels(ABC):
    """Interface of a task that knows its training labels without reading the images."""

    @abstractmethod
    def known_train_labels(self) -> Tensor:
        """The labels of all training images, (num_train,)."""


class TrainingPart(ABC):
    """The training images and labels of a task, as the learner sees them.

    A subclass may also derive from Augments or KnowsLabels and implement their methods.
    """

    num_train: int

    @abstractmethod
    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The float32 images (batch, *shape) and int64 labels (batch,) at `indices` (batch,) of the training part."""

    def plain_train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `train_batch(indices)` without any augmentation."""
        return self.unaugmented_batch(indices) if isinstance(self, Augments) else self.train_batch(indices)

    def augment(self, x: Tensor, indices: Tensor) -> Tensor:
        """Applies to images x the augmentation that `train_batch(indices)` applies to its images.

        Returns x itself if the task has no augmentation.
        """
        return self.augment_images(x, indices) if isinstance(self, Augments) else x

    def train_labels(self) -> Tensor:
        """The labels of all training images, (num_train,)."""
        if isinstance(self, KnowsLabels):
            return self.known_train_labels()
        parts = torch.split(torch.arange(self.num_train), 1024)
        return torch.cat([self.plain_train_batch(part)[1] for part in parts])


class Task(TrainingPart):
    """The training part and the test part of one task."""

    num_test: int

    @abstractmethod
    def test_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The float32 images (batch, *shape) and int64 labels (batch,) at `indices` (batch,) of the test part."""

    def all_test(self) -> tuple[Tensor, Tensor]:
        """All test images (num_test, *shape) and labels (num_test,), in order."""
        return self.test_batch(torch.arange(self.num_test))


@final
class AlteredTask(Task, KnowsLabels):
    """All images of a dataset, each altered in the same way.

    alter: a function from normalised pixels (batch, prod(shape)) to images as the learner sees them. The function may
    overwrite its argument.
    """

    def __init__(self, dataset: Dataset, alter: Callable[[Tensor], Tensor]) -> None:
        self._dataset = dataset
        self._alter = alter
        self.num_train = len(dataset.train.labels)
        self.num_test = len(dataset.test.labels)

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._batch(self._dataset.train, indices)

    def test_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._batch(self._dataset.test, indices)

    def known_train_labels(self) -> Tensor:
        return self._dataset.train.labels

    def _batch(self, images: Images, indices: Tensor) -> tuple[Tensor, Tensor]:
        pixels, labels = images.gather(indices)
        return self._alter(self._dataset.normalise(pixels).flatten(1)), labels


class ReshapesImages(ABC):
    """Interface of a benchmark whose images have another shape than the images of its base dataset."""

    @abstractmethod
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one image as the learner sees it."""


class Relabels(ABC):
    """Interface of a benchmark whose tasks have another number of labels than its base dataset."""

    @abstractmethod
    def labels_of_a_task(self) -> int:
        """The number of labels of each task (l)."""


@dataclass(frozen=True, kw_only=True)
class Benchmark(ABC):
    """A sequence of tasks made from a base dataset.

    Subclasses are final, and their fields are the keys of their config. A subclass may also derive from ReshapesImages,
    Relabels or ChecksFields and implement their methods.
    """

    base: Any = "mnist"
    num_tasks: int = limited(10, least=1, most=MOST_TASKS)

    def __post_init__(self) -> None:
        check_limits(self)
        self.source()
        if isinstance(self, ChecksFields):
            self.check_fields()

    @abstractmethod
    def task(self, index: int, dataset: Dataset, seed: int) -> Task:
        """Returns task `index` for the run seed `seed`. This method is a pure function of its arguments."""

    def source(self) -> Base:
        """Returns the base dataset that the tasks are made from.

        The field `base` is the dataset's name, or a mapping with the key `name` and the dataset's fields.
        """
        return base_from(self.base)

    @property
    def base_name(self) -> str:
        """The name of the base dataset, without its fields."""
        return str(self.base["name"] if isinstance(self.base, Mapping) else self.base)

    def with_base(self, base: Base) -> Self:
        """Returns a copy of this benchmark with the base dataset `base`."""
        return dataclasses.replace(self, base=base_node(base))

    def identity(self) -> dict[str, Any]:
        """All fields that determine a task.

        `num_tasks` is excluded, since task 3 of 10 is the same as task 3 of 2500.
        """
        return {key: value for key, value in identity_fields(self).items() if key != "num_tasks"}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one image as the learner sees it."""
        return self.image_shape() if isinstance(self, ReshapesImages) else self.source().shape

    @property
    def num_labels(self) -> int:
        """The number of labels of each task (l)."""
        return self.labels_of_a_task() if isinstance(self, Relabels) else self.source().num_labels


BENCHMARKS: Registry[type[Benchmark]] = Registry("benchmark")
