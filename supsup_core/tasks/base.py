"""Tasks, and benchmarks: sequences of tasks made from a dataset."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from supsup_core.datasets.base import Base, Dataset, Images, base_from, base_node
from supsup_core.errors import InputError
from supsup_core.registry import Registry


class Task(ABC):
    """The images and labels of one task, as the learner sees them."""

    num_train: int
    num_test: int

    @abstractmethod
    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 images (batch, *shape) and int64 labels (batch,) of the training part."""

    @abstractmethod
    def test_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The same, of the test part."""

    def plain_train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The same as `train_batch`, as the images are: without anything that is drawn at random."""
        return self.train_batch(indices)

    def train_labels(self) -> Tensor:
        """The labels of all training images, (num_train,)."""
        parts = torch.split(torch.arange(self.num_train), 1024)
        return torch.cat([self.plain_train_batch(part)[1] for part in parts])

    def augment(self, x: Tensor, indices: Tensor) -> Tensor:
        """What `train_batch(indices)` does at random to plain images x, done to these."""
        return x

    def all_test(self) -> tuple[Tensor, Tensor]:
        """The whole test part, in order."""
        return self.test_batch(torch.arange(self.num_test))


class AlteredTask(Task):
    """All images of a dataset, each altered in the same way."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.num_train = len(dataset.train.labels)
        self.num_test = len(dataset.test.labels)

    @abstractmethod
    def alter(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (batch, prod(shape)) to images as the learner sees them. May write to `pixels`."""

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._batch(self._dataset.train, indices)

    def train_labels(self) -> Tensor:
        return self._dataset.train.labels

    def test_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._batch(self._dataset.test, indices)

    def _batch(self, images: Images, indices: Tensor) -> tuple[Tensor, Tensor]:
        pixels, labels = images.gather(indices)
        return self.alter(self._dataset.normalise(pixels).flatten(1)), labels


@dataclass(frozen=True, kw_only=True)
class Benchmark(ABC):
    """A sequence of tasks over a base. Subclasses are final; their fields are their config."""

    base: Any = "mnist"
    num_tasks: int = 10

    def __post_init__(self) -> None:
        if self.num_tasks < 1:
            raise InputError(f"num_tasks: must be at least 1, not {self.num_tasks}")
        self.source()

    def source(self) -> Base:
        """The base the tasks are made from: `base` is its name, or {name: …, and its fields}."""
        return base_from(self.base)

    @property
    def base_name(self) -> str:
        """The name of the base alone."""
        return str(self.base["name"] if isinstance(self.base, Mapping) else self.base)

    def with_base(self, base: Base) -> Self:
        """This benchmark over another source, or over the same with more of its fields filled in."""
        return dataclasses.replace(self, base=base_node(base))

    def identity(self) -> dict[str, Any]:
        """Every field that determines a task. num_tasks does not: task 3 of 10 is task 3 of 2500."""
        return {key: value for key, value in asdict(self).items() if key != "num_tasks"}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image as the learner sees it."""
        return self.source().shape

    @property
    def num_labels(self) -> int:
        """Labels per task (l)."""
        return self.source().num_labels

    @abstractmethod
    def task(self, index: int, dataset: Dataset, seed: int) -> Task:
        """Task `index` of the run `seed`: a pure function of its arguments."""


BENCHMARKS: Registry[type[Benchmark]] = Registry("benchmark")
