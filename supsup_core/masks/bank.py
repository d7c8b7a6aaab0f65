"""Stores many masks as packed bits, and computes the mean mask that a superposition needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from supsup_core.masks import codec
from supsup_core.masks.products import inner_products
from supsup_core.nets.base import Layer

if TYPE_CHECKING:
    import numpy.typing as npt

_COUNTED = 16
"""The number of masks that are unpacked to bytes at a time."""


class MaskBank:
    """Stores k masks of one net in k * ceil(n / 8) bytes, and for each weight the number of masks that keep it.

    n is the number of weights in all layers together. Masks are numbered 0..k-1 in the order in which they were added.
    The bits of a mask are the flattened bits of all layers, concatenated in the order of the layers.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self.size = sum(layer.size for layer in layers)
        self._rows = np.zeros((4, codec.num_packed_bytes(self.size)), np.uint8)
        self._counts = np.zeros(self.size, np.int32)
        self.num_masks = 0

    def add(self, bits: codec.Bits) -> int:
        """Add a mask, given as packed bits (ceil(n / 8),), and return its number."""
        if self.num_masks == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[self.num_masks] = bits
        self._counts += codec.unpack(bits, self.size)
        self.num_masks += 1
        return self.num_masks - 1

    def replace(self, index: int, bits: codec.Bits) -> None:
        """Replace mask `index` by a mask given as packed bits (ceil(n / 8),)."""
        self._counts -= codec.unpack(self._rows[index], self.size)
        self._rows[index] = bits
        self._counts += codec.unpack(bits, self.size)

    @property
    def rows(self) -> codec.Bits:
        """All masks as packed bits (k, ceil(n / 8)). The result is a view. Do not write to this view."""
        return self._rows[: self.num_masks]

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        """The number of masks that keep each weight, (n,). The result is a view. Do not write to this view."""
        return self._counts

    def split(self, flat: Tensor) -> list[Tensor]:
        """Views of a flat tensor (n,), one for each layer, each with the shape of the layer."""
        pieces = torch.split(flat, [layer.size for layer in self.layers])
        return [piece.view(layer.shape) for piece, layer in zip(pieces, self.layers, strict=True)]

    def mask(self, index: int) -> list[Tensor]:
        """Mask `index` as float32 zeros and ones, one tensor for each layer."""
        bits = codec.unpack(self._rows[index], self.size)
        return self.split(torch.from_numpy(bits.astype(np.float32)))

    def mean(self) -> list[Tensor]:
        """The mean of all masks, float32, one tensor for each layer.

        The mean is computed from exact integer counts, so no rounding errors accumulate.
        """
        return self.split(torch.from_numpy(self._counts.astype(np.float32)) / self.num_masks)

    def subset_mean(self, indices: Tensor) -> list[Tensor]:
        """The mean of the masks with the numbers `indices` (count,), int64, as one float32 tensor for each layer."""
        total = np.zeros(self.size, np.int32)
        for some in torch.split(indices, _COUNTED):
            total += np.add.reduce(codec.unpack(self._rows[some.numpy()], self.size), 0, dtype=np.uint8)
        return self.split(torch.from_numpy(total.astype(np.float32)) / len(indices))

    def products(self, vectors: Tensor, subset: Tensor | None = None) -> Tensor:
        """The inner product of every mask, or of the masks in `subset`, with every vector.

        vectors: (D, n) float32. subset: int64 mask numbers, or None for all masks. Returns (D, k) float32. The columns
        are in the order of `subset`, or of the mask numbers.
        """
        return inner_products(self.rows if subset is None else self.rows[subset.numpy()], self.size, vectors)
