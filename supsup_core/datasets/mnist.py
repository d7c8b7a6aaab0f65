"""MNIST and Fashion-MNIST from their four gzipped IDX files, verified against the published MD5 sums."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch

from supsup_core.datasets.base import BASES, Base, Dataset, Images, VerifiesFiles
from supsup_core.datasets.download import Published


class IdxImages(Base, VerifiesFiles):
    """An abstract base dataset of 28 x 28 grey images, read from `<root>/<folder>/*.gz`.

    The dataset has 60,000 training images and 10,000 test images.
    """

    shape = (28, 28)
    num_labels = 10
    mean: ClassVar[float]
    std: ClassVar[float]

    @property
    @abstractmethod
    def files(self) -> Published:
        """The four published files: their names, checksums and mirrors."""

    def checksum(self) -> str:
        return self.files.checksum()

    def verify_files(self, root: Path | None) -> None:
        self.files.contents(root)

    def load(self, root: Path | None) -> Dataset:
        content = self.files.contents(root)
        parts = [
            _images(content[f"{part}-images-idx3-ubyte.gz"], content[f"{part}-labels-idx1-ubyte.gz"])
            for part in ("train", "t10k")
        ]
        return Dataset(train=parts[0], test=parts[1], mean=self.mean, std=self.std)


_NUM_BYTES = {
    "train-images-idx3-ubyte.gz": 16 + 60_000 * 784,
    "train-labels-idx1-ubyte.gz": 8 + 60_000,
    "t10k-images-idx3-ubyte.gz": 16 + 10_000 * 784,
    "t10k-labels-idx1-ubyte.gz": 8 + 10_000,
}
"""The sizes of the decompressed IDX files: a header, then one byte for each pixel or label."""


def _images(pixels: bytes, labels: bytes) -> Images:
    """Returns the images and labels in the contents of two IDX files, without the headers of 16 and 8 bytes.

    The caller has already verified the files.
    """
    shaped = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28).copy()
    return Images(
        torch.from_numpy(shaped),
        torch.from_numpy(np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)),
    )


@final
@BASES.register("mnist")
@dataclass(frozen=True)
class MNIST(IdxImages):
    """MNIST: handwritten digits."""

    mean = 0.1307
    std = 0.3081
    files = Published(
        folder="mnist",
        md5={
            "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
        },
        most_bytes=_NUM_BYTES,
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        unpacks=True,  # different programs compressed the copies, so only the content has one checksum
    )


@final
@BASES.register("fashion_mnist")
@dataclass(frozen=True)
class FashionMNIST(IdxImages):
    """Fashion-MNIST: grey images of clothing, in the format of MNIST."""

    mean = 0.2860
    std = 0.3530
    files = Published(
        folder="fashion_mnist",
        md5={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        most_bytes=_NUM_BYTES,
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        unpacks=False,
    )
