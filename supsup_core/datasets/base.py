"""Base datasets (sources of labelled images, as named in a config), and the images that are read from them."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from supsup_core.errors import InputError, prefix_errors
from supsup_core.later_fields import identity_fields
from supsup_core.registry import Registry, nearest


@dataclass(frozen=True)
class Images:
    """The training or the test part of a dataset: N images and their labels.

    `pixels`: uint8 (N, *shape), one image after the other. `labels`: int64 (N,). `places`: the row of `pixels` that
    holds each image, as int64 (N,). With `places`, `pixels` is (M, *shape), for example the pixels of a larger dataset
    of which this part uses N images. None means that image n is pixels[n].
    """

    pixels: Tensor
    labels: Tensor
    places: Tensor | None = None

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The uint8 pixels (batch, *shape) and int64 labels (batch,) of the images at `indices` (batch,)."""
        rows = indices if self.places is None else self.places.index_select(0, indices)
        return self.pixels.index_select(0, rows), self.labels.index_select(0, indices)


@dataclass(frozen=True)
class Dataset:
    """The images of a base dataset in two parts, with the mean and the standard deviation of their pixels.

    `mean`, `std`: the values for pixels scaled to [0, 1]. Each field is one number for all pixels, or a tuple with one
    number for each channel. Channels are the first dimension of an image.
    """

    train: Images
    test: Images
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Returns (pixel / 255 - mean) / std as float32, for pixels (batch, *shape).

        If `mean` and `std` are single numbers, an image may have any shape.
        """
        if isinstance(self.mean, float) and isinstance(self.std, float):
            return pixels.float().mul_(1 / (255 * self.std)).sub_(self.mean / self.std)
        mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (self.mean, self.std))
        return pixels.float().mul_((1 / (255 * std)).float()).sub_((mean / std).float())


class ReadsFiles(ABC):
    """Interface of a base dataset that reads the values of some of its fields from the dataset's files."""

    @abstractmethod
    def with_files(self, root: Path | None) -> Base:
        """Returns a copy of this base with the fields filled in whose values come from the files below `root`.

        Raises InputError if files are missing or contradict the config.
        """


class DerivedBase(ABC):
    """Interface of a base that is made from the images of another base."""

    @abstractmethod
    def source_base(self) -> Base:
        """The base that the images come from."""


class VerifiesFiles(ABC):
    """Interface of a base that can verify its files without decoding the images."""

    @abstractmethod
    def verify_files(self, root: Path | None) -> None:
        """Raise the errors that `load` would raise, without decoding the images."""


@dataclass(frozen=True)
class Base(ABC):
    """A base dataset, that is, a source of labelled images.

    Concrete subclasses are final frozen dataclasses, and their fields are the keys of their config. The shape, number
    of labels and checksum of a base are known before its images are read. A subclass may also derive from ReadsFiles,
    DerivedBase or VerifiesFiles and implement their methods.
    """

    resident_images: ClassVar[int] = 70_000
    """The approximate number of images that a process holds in memory after `load`."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one image. Subclasses may define `shape` as a class attribute."""

    @property
    @abstractmethod
    def num_labels(self) -> int:
        """The number of classes. Subclasses may define `num_labels` as a class attribute."""

    @abstractmethod
    def checksum(self) -> str:
        """A text that identifies the content of the dataset. The content key of every trained task includes this
        text."""

    @abstractmethod
    def load(self, root: Path | None) -> Dataset:
        """Read and verify the images below the folder `root`; None means the user's cache folder.

        Raises InputError if files are missing and cannot be downloaded. Raises CorruptError if the bytes are not the
        expected ones.
        """

    def resolved(self, root: Path | None) -> Base:
        """Returns this base with the values of all its fields, including those that are read from its files.

        A base that is not a ReadsFiles is returned unchanged. Raises InputError if files are missing or contradict the
        config.
        """
        return self.with_files(root) if isinstance(self, ReadsFiles) else self

    def original(self) -> Base:
        """The base that the images come from: the source of a DerivedBase, or else this base itself."""
        return self.source_base() if isinstance(self, DerivedBase) else self

    def verify(self, root: Path | None) -> None:
        """Raise the errors that `load` would raise. If this base is a VerifiesFiles, no image is decoded."""
        if isinstance(self, VerifiesFiles):
            self.verify_files(root)
        else:
            self.load(root)


BASES: Registry[type[Base]] = Registry("dataset")


_PLAIN: dict[str, tuple[Any, str]] = {
    "str": (str, "a name"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
}
"""The field annotations that `base_from` checks. Each value is a pair: the accepted types, and a description of these
types for messages."""


def base_from(node: Any) -> Base:
    """Returns the base that a config node describes.

    The node is a name, or a mapping with the key `name` and the fields of the base. Raises InputError if the node is
    invalid.
    """
    fields = dict(node) if isinstance(node, Mapping) else {"name": node}
    name = str(fields.pop("name", ""))
    cls = BASES.under("base", name)
    known = {field.name: field for field in dataclasses.fields(cls)}
    for key in fields:
        if key not in known:
            names = list(known)
            raise InputError(
                f"base: unknown key {key!r}{nearest(key, names)}; the known keys are: {', '.join(names) or 'none'}"
            )
    for key, field in known.items():
        if key not in fields and field.default is field.default_factory is dataclasses.MISSING:
            raise InputError(f"base.{key}: is missing; base {name} needs this key")
    for key, value in fields.items():
        kind = str(known[key].type)
        wanted, words = _PLAIN.get(kind.removesuffix(" | None"), (object, ""))
        if value is None and kind.endswith(" | None"):
            continue
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted not in (bool, object)):
            raise InputError(f"base.{key}: must be {words}, not {value!r}")
    try:
        with prefix_errors("base."):
            return cls(**fields)
    except TypeError as error:
        raise InputError(f"base: a value has the wrong type ({error})") from error


def base_node(base: Base) -> Any:
    """Returns the config node from which `base_from` makes the base.

    If all fields have their default values, the node is only the name.
    """
    name, values = BASES.name_of(type(base)), asdict(base)
    defaults = {field.name: field.default for field in dataclasses.fields(base)}
    return name if values == defaults else {"name": name, **identity_fields(base)}
