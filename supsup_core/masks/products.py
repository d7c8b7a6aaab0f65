"""Inner products of packed masks with vectors: what every decision about k masks comes down to."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from supsup_core.masks import codec

_BLOCK = 512
"""Bytes of a mask taken at a time: what they select from, 16 KB of floats, stays in the nearest cache."""
_TOGETHER = 5
"""Vectors from which on it pays to take them together, if they have so many products with masks:"""
_PRODUCTS_TOGETHER = 600
_CHUNK_BYTES = 64 << 20
"""Float bytes of masks unpacked at a time: bounds memory whatever k is."""


@functools.cache
def _byte_floats() -> Tensor:
    """The eight floats that each of the 256 bytes stands for: (256, 8)."""
    return torch.from_numpy(codec.unpack(np.arange(256, dtype=np.uint8)[:, None], 8).astype("float32"))


def inner_products(rows: codec.Bits, size: int, vectors: Tensor) -> Tensor:
    """Inner product of every mask with every vector, within 1.5e-6 of the vector's length.

    rows: packed masks (k, ceil(size / 8)); vectors: (D, size) float32, on any device. Returns (D, k) float32, on the
    CPU. The masks are never all floats at once.
    """
    if vectors.device.type == "cpu":
        return selected(rows, vectors)
    return multiplied(rows, size, vectors).cpu()


def selected(rows: codec.Bits, vectors: Tensor) -> Tensor:
    """Bits select among a vector's numbers. On a CPU this beats `multiplied` however many vectors there are."""
    from supsup_core.kernels.compiled import LANES, PICKS

    alone = selected_by_picking if PICKS else selected_by_planes
    found = []
    for some in torch.split(vectors, LANES):
        together = len(some) >= _TOGETHER and len(some) * len(rows) >= _PRODUCTS_TOGETHER
        found.append((selected_together if together else alone)(rows, some))
    return torch.cat(found)


def selected_by_planes(rows: codec.Bits, vectors: Tensor) -> Tensor:
    """`selected` one vector after the other, a bit of every byte at a time, on any processor."""
    from supsup_core.kernels.compiled import add_inner_products

    num_blocks = -(-rows.shape[1] // _BLOCK)
    padded = torch.zeros(num_blocks * _BLOCK * 8)
    out = np.zeros((len(vectors), len(rows)))
    for vector, found in zip(vectors, out, strict=True):
        padded[: len(vector)] = vector
        planes = padded.view(num_blocks, _BLOCK, 8).transpose(1, 2).contiguous()
        add_inner_products(rows, planes.numpy(), found)
    return torch.from_numpy(out).float()


def selected_by_picking(rows: codec.Bits, vectors: Tensor) -> Tensor:
    """`selected` one vector after the other, a few bits of many masks side by side; needs AVX2 or AVX-512."""
    from supsup_core.kernels.compiled import PICKED, add_products_by_picking

    ends = _ends(rows, 4 * PICKED)
    out = np.zeros((len(vectors), len(rows)))
    for vector, found in zip(vectors, out, strict=True):
        add_products_by_picking(rows, ends, vector.contiguous().numpy(), found)
    return torch.from_numpy(out).float()


def selected_together(rows: codec.Bits, vectors: Tensor) -> Tensor:
    """`selected` up to LANES vectors side by side, half a byte of a mask at a time."""
    from supsup_core.kernels.compiled import LANES, add_products_together

    out = np.zeros((len(rows), LANES))
    add_products_together(rows, _ends(rows, 8), vectors.contiguous().numpy(), out)
    return torch.from_numpy(out[:, : len(vectors)].T.astype(np.float32))


def _ends(rows: codec.Bits, width: int) -> codec.Bits:
    """The bytes of each mask past its last whole `width`, filled up with zeros: (k, width)."""
    whole = rows.shape[1] // width * width
    ends = np.zeros((len(rows), width), np.uint8)
    ends[:, : rows.shape[1] - whole] = rows[:, whole:]
    return ends


def multiplied(rows: codec.Bits, size: int, vectors: Tensor) -> Tensor:
    """Masks as floats, some at a time and in the same place, times the vectors, on their device, whatever that is."""
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
