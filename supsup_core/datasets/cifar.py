"""CIFAR-10 and CIFAR-100 from their binary archives, read without unpickling anything."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch

from supsup_core.datasets.base import BASES, Base, Dataset, Images
from supsup_core.datasets.download import Published
from supsup_core.errors import CorruptError

PIXELS = 3 * 32 * 32
"""The number of bytes of one image: all red, then all green, then all blue pixels, each row by row."""


@dataclass(frozen=True)
class Layout:
    """The layout of an archive: the files of each part in `folder`, and the number of label bytes before each image.

    The last label byte is the class.
    """

    folder: str
    train: Sequence[str]
    test: Sequence[str]
    label_bytes: int


class Cifar(Base):
    """An abstract base dataset of 32 x 32 colour images, read from `<root>/cifar/*-binary.tar.gz`.

    The dataset has 50,000 training images and 10,000 test images.
    """

    shape = (3, 32, 32)
    files: ClassVar[Published]
    layout: ClassVar[Layout]

    def checksum(self) -> str:
        return self.files.checksum()

    def load(self, root: Path | None) -> Dataset:
        ((name, content),) = self.files.contents(root).items()
        layout = self.layout
        try:
            with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
                parts = [
                    b"".join(self._member(archive, name, member) for member in members)
                    for members in (layout.train, layout.test)
                ]
        except (tarfile.TarError, OSError, EOFError) as error:
            raise CorruptError(f"{name}: is not a gzipped tar archive ({error}); download it again") from error
        train, test = (
            self._images(name, part, content, count)
            for part, content, count in zip(("training", "test"), parts, (50_000, 10_000), strict=True)
        )
        return Dataset(train=train, test=test, mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262))

    def _member(self, archive: tarfile.TarFile, name: str, member: str) -> bytes:
        path = f"{self.layout.folder}/{member}"
        try:
            file = archive.extractfile(path)
        except KeyError:
            file = None
        if file is None:
            raise CorruptError(f"{name}: the archive contains no file {path}; download it again")
        return file.read()

    def _images(self, name: str, part: str, content: bytes, count: int) -> Images:
        """The images of one part.

        Raises CorruptError if the part, or a class in it, does not have the published number of images.
        """
        record = self.layout.label_bytes + PIXELS
        if len(content) != count * record:
            raise CorruptError(
                f"{name}: its {part} part has {len(content)} bytes, not {count} records of {record} bytes; download "
                "it again"
            )
        rows = np.frombuffer(content, np.uint8).reshape(count, record)
        labels = rows[:, self.layout.label_bytes - 1].astype(np.int64)
        counts = np.bincount(labels, minlength=self.num_labels)
        if len(counts) != self.num_labels or (counts != count // self.num_labels).any():
            raise CorruptError(
                f"{name}: its {part} part has wrong labels: each of {self.num_labels} classes must have "
                f"{count // self.num_labels} images, but {len(counts)} classes have {counts.min()} to {counts.max()}; "
                "download it again"
            )
        pixels = rows[:, self.layout.label_bytes :].reshape(count, *self.shape).copy()
        return Images(torch.from_numpy(pixels), torch.from_numpy(labels))


_MOST_BYTES = 171_000_000
"""The largest size of an archive, in bytes. Both archives have about 170 MB."""


def _published(name: str, md5: str) -> Published:
    """Returns the published archive called `name`."""
    return Published("cifar", {name: md5}, {name: _MOST_BYTES}, ("https://www.cs.toronto.edu/~kriz/",), unpacks=False)


@final
@BASES.register("cifar10")
@dataclass(frozen=True)
class CIFAR10(Cifar):
    """CIFAR-10: ten classes."""

    num_labels = 10
    files = _published("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")
    layout = Layout("cifar-10-batches-bin", [f"data_batch_{n}.bin" for n in range(1, 6)], ["test_batch.bin"], 1)


@final
@BASES.register("cifar100")
@dataclass(frozen=True)
class CIFAR100(Cifar):
    """CIFAR-100 with its hundred fine classes."""

    num_labels = 100
    files = _published("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8")
    layout = Layout("cifar-100-binary", ["train.bin"], ["test.bin"], 2)
