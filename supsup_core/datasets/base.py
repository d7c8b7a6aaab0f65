"""Bases (labelled images) and benchmarks (sequences of tasks made from a base)."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from supsup_core.errors import InputError
from supsup_core.registry import Registry, nearest


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


BASES: Registry[type[Base]] = Registry("dataset")


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
