"""Inner products of packed masks with vectors: what every decision about k masks comes down to."""

from __future__ import annotations

import torch
from torch import Tensor

from supsup_core.masks import codec

_FEW = 16
"""Up to so many vectors are looked up; more are multiplied, where unpacking pays for itself."""
_BLOCK = 256
"""Bytes of a mask looked up at a time: their tables, 256 KB of floats, stay in the cache."""
_CHUNK_BYTES = 64 << 20
"""Float bytes of masks unpacked at a time: bounds memory whatever k is."""

_BYTE_BITS = torch.from_numpy(codec.unpack(codec.BYTES[:, None], 8).astype("float32"))


def inner_products(rows: codec.Bits, size: int, vectors: Tensor) -> Tensor:
    """Inner product of every mask with every vector.

    rows: packed masks (k, ceil(size / 8)); vectors: (D, size) float32. Returns (D, k) float32. The masks are
    never all floats at once.
    """
    if len(vectors) <= _FEW:
        return _looked_up(torch.from_numpy(rows), vectors)
    step = max(1, _CHUNK_BYTES // (4 * size))
    out = torch.empty(vectors.shape[0], len(rows))
    for start in range(0, len(rows), step):
        chunk = torch.from_numpy(codec.unpack(rows[start : start + step], size)).float()
        out[:, start : start + step] = vectors @ chunk.t()
    return out


def _looked_up(rows: Tensor, vectors: Tensor) -> Tensor:
    """A mask's byte selects one of the 256 sums that its eight weights can have."""
    num_bytes = rows.shape[1]
    padded = torch.zeros(len(vectors), num_bytes * 8)
    padded[:, : vectors.shape[1]] = vectors
    eights = padded.view(len(vectors), num_bytes, 8)
    out = torch.zeros(len(vectors), len(rows))
    for start in range(0, num_bytes, _BLOCK):
        block = rows[:, start : start + _BLOCK]
        places = block.to(torch.int32) + torch.arange(0, 256 * block.shape[1], 256, dtype=torch.int32)
        tables = (eights[:, start : start + _BLOCK] @ _BYTE_BITS.t()).flatten(1)
        for number, table in enumerate(tables):
            out[number] += table.index_select(0, places.view(-1)).view(block.shape).sum(1)
    return out
