"""Inner products of packed masks with vectors on a CPU: selects a compiled loop and prepares its arguments."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from supsup_core.kernels.mask_products import (
    HAS_PERMUTATION,
    LANES,
    REGISTER_LANES,
    add_products_by_lookup,
    add_products_by_permutation,
    add_products_by_planes,
)
from supsup_core.masks import codec

_BLOCK = 512
"""The number of bytes of a mask read at a time. The bits of this many bytes select from 16 KB of floats, which stay in
the L1 cache."""
_FEWEST_VECTORS = 5
_FEWEST_PRODUCTS = 600
"""With at least _FEWEST_VECTORS vectors and at least _FEWEST_PRODUCTS inner products, multiplying the vectors side by
side is faster than multiplying one after the other."""


def select_products(rows: codec.Bits, vectors: Tensor) -> Tensor:
    """The inner product of every mask with every vector: (D, k) float32.

    rows: packed masks (k, bytes); vectors: (D, size) float32 on the CPU.
    """
    one_by_one = products_by_permutation if HAS_PERMUTATION else products_by_planes
    found = []
    for some in torch.split(vectors, LANES):
        side_by_side = len(some) >= _FEWEST_VECTORS and len(some) * len(rows) >= _FEWEST_PRODUCTS
        found.append((products_by_lookup if side_by_side else one_by_one)(rows, some))
    return torch.cat(found)


def products_by_planes(rows: codec.Bits, vectors: Tensor) -> Tensor:
    """Computes the result of `select_products` for one vector after the other, on any processor.

    The loop tests one bit of each byte in turn (kernels.mask_products.add_products_by_planes).
    """
    num_blocks = -(-rows.shape[1] // _BLOCK)
    padded = torch.zeros(num_blocks * _BLOCK * 8)
    out = np.zeros((len(vectors), len(rows)))
    for vector, products in zip(vectors, out, strict=True):
        padded[: len(vector)] = vector
        planes = padded.view(num_blocks, _BLOCK, 8).transpose(1, 2).contiguous()
        add_products_by_planes(rows, planes.numpy(), products)
    return torch.from_numpy(out).float()


def products_by_permutation(rows: codec.Bits, vectors: Tensor) -> Tensor:
    """Computes the result of `select_products` for one vector after the other. The processor must have AVX2.

    The loop reads a few bits of REGISTER_LANES masks at a time (kernels.mask_products.add_products_by_permutation).
    """
    ends = _ends(rows, 4 * REGISTER_LANES)
    out = np.zeros((len(vectors), len(rows)))
    for vector, products in zip(vectors, out, strict=True):
        add_products_by_permutation(rows, ends, vector.contiguous().numpy(), products)
    return torch.from_numpy(out).float()


def products_by_lookup(rows: codec.Bits, vectors: Tensor) -> Tensor:
    """Computes the result of `select_products` for up to LANES vectors side by side, on any processor.

    The loop reads half a byte of a mask at a time (kernels.mask_products.add_products_by_lookup).
    """
    out = np.zeros((len(rows), LANES))
    add_products_by_lookup(rows, _ends(rows, 8), vectors.contiguous().numpy(), out)
    return torch.from_numpy(out[:, : len(vectors)].T.astype(np.float32))


def _ends(rows: codec.Bits, width: int) -> codec.Bits:
    """The bytes of each mask after its last full block of `width` bytes, padded with zeros: (k, width)."""
    whole = rows.shape[1] // width * width
    ends = np.zeros((len(rows), width), np.uint8)
    ends[:, : rows.shape[1] - whole] = rows[:, whole:]
    return ends
