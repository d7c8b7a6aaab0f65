"""scikit-learn's bundled handwritten digits: real data that needs no download."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from supsup_core.benchmarks.base import BASES, Base, Dataset, Images
from supsup_core.errors import CorruptError

SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
"""Over the 1797 x 64 pixels (uint8, 0..16) and the labels (uint8), as scikit-learn ships them."""

NUM_TRAIN = 1437
"""The first images train, the last 360 test: other writers, as in the original split of the data."""


@BASES.register("digits")
@dataclass(frozen=True)
class Digits(Base):
    """1,797 digits, 8 x 8, 17 grey levels."""

    shape = (8, 8)
    num_labels = 10

    def checksum(self) -> str:
        return SHA256

    def load(self, root: Path | None) -> Dataset:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        pixels, labels = bunch.data.astype(np.uint8), bunch.target.astype(np.uint8)
        found = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
        if found != SHA256:
            raise CorruptError(
                f"scikit-learn's digits have changed (SHA-256 {found}); install the version in constraints.txt"
            )
        grey = torch.from_numpy(pixels.reshape(-1, 8, 8) * np.uint8(15))
        targets = torch.from_numpy(labels.astype(np.int64))
        return Dataset(
            train=Images(grey[:NUM_TRAIN], targets[:NUM_TRAIN]),
            test=Images(grey[NUM_TRAIN:], targets[NUM_TRAIN:]),
            mean=0.2874,
            std=0.3534,
        )
