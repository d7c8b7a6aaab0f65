"""Inner products of packed masks with vectors, from which the slopes of all masks are computed."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from supsup_core.masks import codec

_CHUNK_BYTES = 64 << 20
"""The size, in bytes, of the float32 buffer into which masks are unpacked, one chunk after the other. The buffer's size
bounds memory for any number of masks."""


@functools.cache
def _byte_floats() -> Tensor:
    """The eight bits of every possible byte, as float32, (256, 8)."""
    return torch.from_numpy(codec.unpack(np.arange(256, dtype=np.uint8)[:, None], 8).astype("float32"))


def inner_products(rows: codec.Bits, size: int, vectors: Tensor) -> Tensor:
    """The inner product of every mask with every vector. The error is below 1.5e-6 times the vector's Euclidean norm.

    rows: packed masks (k, ceil(size / 8)). vectors: (D, size) float32, on any device. Returns (D, k) float32, on the
    CPU. If the vectors are on the CPU, compiled loops read the packed bits, which is faster than a matrix product for
    any number of vectors. On other devices, masks are unpacked in chunks of bounded size.
    """
    if vectors.device.type == "cpu":
        from supsup_core.masks.selection import select_products  # the import loads numba, which takes 0.2 s

        return select_products(rows, vectors)
    return multiply_unpacked(rows, size, vectors).cpu()


def multiply_unpacked(rows: codec.Bits, size: int, vectors: Tensor) -> Tensor:
    """Computes the result of `inner_products` by matrix products. The result is on the vectors' device.

    Masks are unpacked to float32 in chunks, into one buffer.
    """
    device, num_bytes = vectors.device, rows.shape[1]
    step = max(1, _CHUNK_BYTES // (32 * num_bytes))
    table = _byte_floats().to(device)
    unpacked = torch.empty(min(step, len(rows)) * num_bytes, 8, device=device)
    out = torch.empty(len(vectors), len(rows), device=device)
    for start in range(0, len(rows), step):
        chunk = torch.from_numpy(rows[start : start + step]).to(device)
        floats = unpacked[: chunk.numel()]
        torch.index_select(table, 0, chunk.flatten().int(), out=floats)
        torch.mm(vectors, floats.view(len(chunk), -1)[:, :size].t(), out=out[:, start : start + len(chunk)])
    return out
