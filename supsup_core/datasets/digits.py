"""The handwritten digits that scikit-learn ships: real data that needs no download."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from supsup_core.datasets.base import BASES, Base, Dataset, Images, VerifiesFiles
from supsup_core.errors import CorruptError, InputError
from supsup_core.field_limits import check_limits, limited

if TYPE_CHECKING:
    import numpy.typing as npt

SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
"""The SHA-256 of the 1797 x 64 pixels (uint8, 0..16) followed by the 1797 labels (uint8)."""

_MEAN, _STD = 0.2874, 0.3534

NUM_TRAIN = 1437
"""The number of training images. The training images come first in the file; the other 360 images are the test part."""


@final
@BASES.register("digits")
@dataclass(frozen=True, kw_only=True)
class Digits(Base, VerifiesFiles):
    """The 1,797 handwritten digits of scikit-learn: images of 8 x 8 pixels with 17 grey levels.

    `enlarge`: the side of the square that replaces each pixel. `channels`: the number of identical channels. With
    `enlarge` 4 and `channels` 3, the images have the shape of CIFAR's images, so a convolutional net can be tried on
    them.
    """

    num_labels = 10

    enlarge: int = limited(1, least=1, most=32)
    channels: int = limited(1, least=1, most=4)

    def __post_init__(self) -> None:
        for name in ("enlarge", "channels"):
            value = getattr(self, name)
            if not isinstance(value, int):
                raise InputError(f"{name}: must be a whole number, not {value!r}")
        check_limits(self)

    @property
    def shape(self) -> tuple[int, ...]:
        side = 8 * self.enlarge
        return (side, side) if self.channels == 1 else (self.channels, side, side)

    def checksum(self) -> str:
        return SHA256

    def verify_files(self, root: Path | None) -> None:
        _read()

    def load(self, root: Path | None) -> Dataset:
        pixels, labels = _read()
        grey = torch.from_numpy(pixels.reshape(-1, 8, 8) * np.uint8(15))
        grey = grey.repeat_interleave(self.enlarge, 1).repeat_interleave(self.enlarge, 2)
        if self.channels > 1:
            grey = grey[:, None].repeat(1, self.channels, 1, 1)
        targets = torch.from_numpy(labels.astype(np.int64))
        return Dataset(
            train=Images(grey[:NUM_TRAIN], targets[:NUM_TRAIN]),
            test=Images(grey[NUM_TRAIN:], targets[NUM_TRAIN:]),
            mean=_MEAN if self.channels == 1 else (_MEAN,) * self.channels,
            std=_STD if self.channels == 1 else (_STD,) * self.channels,
        )


def _read() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The pixels (1797, 64), from 0 to 16, and the labels (1797,). Raises CorruptError if their SHA-256 is wrong."""
    rows = np.loadtxt(_path(), dtype=np.uint8, delimiter=",")
    pixels, labels = rows[:, :-1], rows[:, -1]
    found = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    if found != SHA256:
        raise CorruptError(
            f"the digits of this scikit-learn are not the expected ones (SHA-256 {found}); install the version of "
            "scikit-learn in constraints.txt"
        )
    return pixels, labels


def _path() -> Path:
    """The path of the file of digits in scikit-learn's package. scikit-learn is not imported, because that is slow.

    Raises InputError if the file is missing.
    """
    spec = find_spec("sklearn")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise InputError(
            "the file of digits in scikit-learn is missing; install the version of scikit-learn in constraints.txt"
        )
    return path
