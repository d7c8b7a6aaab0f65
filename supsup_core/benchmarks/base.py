"""Bases (labelled images) and benchmarks (sequences of tasks made from a base)."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch

from supsup_core.errors import InputError
from supsup_core.registry import Registry, nearest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Images:
    """One part of a dataset: int64 labels (N,), and uint8 pixels (N, *shape), or those of more images (M, *shape) of
    which these are the ones at `places` (N,)."""

    pixels: Tensor
    labels: Tensor
    places: Tensor | None = None

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (batch, *shape) and labels (batch,) of some of the images."""
        rows = indices if self.places is None else self.places.index_select(0, indices)
        return self.pixels.index_select(0, rows), self.labels.index_select(0, indices)


@dataclass(frozen=True)
class Dataset:
    """A base held in memory: its two parts and the constants that normalise a pixel in [0, 1].

    `mean`, `std`: of all pixels, or of each channel, the first dimension of an image.
    """

    train: Images
    test: Images
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels (batch, *shape), or one colourless pixel after the other in any shape, to float32
        (pixel / 255 - mean) / std."""
        if isinstance(self.mean, float) and isinstance(self.std, float):
            return pixels.float().mul_(1 / (255 * self.std)).sub_(self.mean / self.std)
        mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (self.mean, self.std))
        return pixels.float().mul_((1 / (255 * std)).float()).sub_((mean / std).float())


@dataclass(frozen=True)
class Base(ABC):
    """A source of labelled images. Subclasses are final frozen dataclasses; their fields are their config.

    Its facts (shape, labels, checksum) are known before it is loaded.
    """

    shape: ClassVar[tuple[int, ...]]
    num_labels: ClassVar[int]
    resident_images: ClassVar[int] = 70_000
    """About how many images a process holds in memory once it has loaded them."""

    def resolved(self, root: Path | None) -> Base:
        """This base with what only its files can tell filled in; itself where there is nothing of the kind.

        InputError when they are missing or not what the config says.
        """
        return self

    def original(self) -> Base:
        """The base whose images these are: itself, unless it is made from another one."""
        return self

    @abstractmethod
    def checksum(self) -> str:
        """What identifies the bytes of this dataset, version included; part of every task's key."""

    @abstractmethod
    def load(self, root: Path | None) -> Dataset:
        """Read and verify the images below `root` (None: the user's cache).

        InputError when they are missing and cannot be had, CorruptError when they are not the
        published bytes.
        """

    def verify(self, root: Path | None) -> None:
        """Raise what `load` would, and nothing else. A base that can do so without torch lets a sweep start sooner."""
        self.load(root)


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


BASES: Registry[type[Base]] = Registry("dataset")
BENCHMARKS: Registry[type[Benchmark]] = Registry("benchmark")


_PLAIN: dict[str, tuple[Any, str]] = {
    "str": (str, "a name"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
}
"""The types of fields that are checked, as they are annotated, and what to call them."""


def base_from(node: Any) -> Base:
    """A base from its name, or {name: …, and its fields}; InputError where that is not one."""
    fields = dict(node) if isinstance(node, Mapping) else {"name": node}
    name = str(fields.pop("name", ""))
    cls = BASES[name]
    known = {field.name: field for field in dataclasses.fields(cls)}
    for key in fields:
        if key not in known:
            names = list(known)
            raise InputError(f"base: unknown key {key!r}{nearest(key, names)}; there are: {', '.join(names) or 'none'}")
    for key, field in known.items():
        if key not in fields and field.default is field.default_factory is dataclasses.MISSING:
            raise InputError(f"base.{key}: missing; base {name} needs it")
    for key, value in fields.items():
        wanted, words = _PLAIN.get(str(known[key].type), (object, ""))
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted not in (bool, object)):
            raise InputError(f"base.{key}: must be {words}, not {value!r}")
    try:
        return cls(**fields)
    except InputError as error:
        raise InputError(f"base.{error}") from error
    except TypeError as error:
        raise InputError(f"base: a value has the wrong type ({error})") from error


def base_node(base: Base) -> Any:
    """What `base_from` makes the base from: its name alone, where its fields are as they are when nobody sets them."""
    name, values = BASES.name_of(type(base)), asdict(base)
    usual = {field.name: field.default for field in dataclasses.fields(base)}
    return name if values == usual else {"name": name, **values}
