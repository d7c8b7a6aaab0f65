"""All masks learned so far, as packed bits, with the running mean that a superposition needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from supsup_core.masks import codec
from supsup_core.nets.base import Layer

_CHUNK_BYTES = 64 << 20
"""Float bytes of masks unpacked at a time in a product: bounds memory whatever k is."""


class MaskBank:
    """k masks of one net: k * ceil(n / 8) bytes, and an exact integer count per weight.

    Masks are numbered 0..k-1 in the order they were added. n is the number of weights of all layers,
    laid end to end.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self.size = sum(layer.size for layer in layers)
        self._rows = np.zeros((4, codec.num_packed_bytes(self.size)), np.uint8)
        self._counts = np.zeros(self.size, np.int32)
        self.num_masks = 0

    def add(self, bits: codec.Bits) -> int:
        """Take one mask as packed bits (ceil(n / 8),); returns its number."""
        if self.num_masks == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[self.num_masks] = bits
        self._counts += codec.unpack(bits, self.size)
        self.num_masks += 1
        return self.num_masks - 1

    def split(self, flat: Tensor) -> list[Tensor]:
        """A flat (n,) tensor as one view per layer, in the layers' shapes."""
        pieces = torch.split(flat, [layer.size for layer in self.layers])
        return [piece.view(layer.shape) for piece, layer in zip(pieces, self.layers, strict=True)]

    def mask(self, index: int) -> list[Tensor]:
        """Mask `index` as float32 zeros and ones, one tensor per layer."""
        bits = codec.unpack(self._rows[index], self.size)
        return self.split(torch.from_numpy(bits.astype(np.float32)))

    def mean(self) -> list[Tensor]:
        """The mean of all masks (float32, per layer), from the exact counts: no drift."""
        return self.split(torch.from_numpy(self._counts.astype(np.float32)) / self.num_masks)

    def subset_mean(self, indices: Tensor) -> list[Tensor]:
        """The mean of some masks (int64 indices), per layer."""
        total = np.zeros(self.size, np.int32)
        for index in indices.tolist():
            total += codec.unpack(self._rows[index], self.size)
        return self.split(torch.from_numpy(total.astype(np.float32)) / len(indices))

    def products(self, vectors: Tensor, subset: Tensor | None = None) -> Tensor:
        """Inner product of every mask (or those of `subset`) with every vector.

        vectors: (D, n) float32; returns (D, k) float32, columns in the order of `subset` when given.
        Masks are unpacked a bounded number at a time; never are all of them floats at once.
        """
        rows = self._rows[: self.num_masks] if subset is None else self._rows[subset.numpy()]
        step = max(1, _CHUNK_BYTES // (4 * self.size))
        out = torch.empty(vectors.shape[0], len(rows))
        for start in range(0, len(rows), step):
            chunk = torch.from_numpy(codec.unpack(rows[start : start + step], self.size)).float()
            out[:, start : start + step] = vectors @ chunk.t()
        return out
