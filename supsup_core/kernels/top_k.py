"""Exact top-k selection as a compiled loop: a radix select over the bits of float32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from supsup_core.kernels.compilation import Floats, compile_exact


@compile_exact
def _sort_key(bits: np.uint32, by_size: bool) -> np.uint32:
    """Map the bits of a float32 to an integer that sorts like the float; -0.0 equals 0.0.

    by_size: the integer sorts like the absolute value instead.
    """
    size = bits & np.uint32(0x7FFFFFFF)
    if by_size:
        return size
    if size != bits and size != 0:
        return np.uint32(0x80000000) - size
    return np.uint32(0x80000000) + size


@compile_exact
def keep_largest(bits: npt.NDArray[np.uint32], count: int, by_size: bool, out: Floats) -> None:
    """Write to `out` a mask of exactly `count` ones, at the largest values. Ties go to the lowest index.

    bits: flat finite float32 values, given as their bits. by_size: rank by absolute value. The algorithm is a radix
    select in three passes over the sort keys. The first pass counts the upper halves of all keys, and so finds the
    upper half of the smallest kept key. The second pass counts the lower halves of the keys with this upper half, and
    so finds the lower half of the smallest kept key. The third pass writes the mask.
    """
    bins = np.zeros(1 << 16, np.int64)
    for i in range(len(bits)):
        bins[_sort_key(bits[i], by_size) >> np.uint32(16)] += 1
    wanted, last = count, len(bins) - 1
    while bins[last] < wanted:
        wanted -= bins[last]
        last -= 1
    candidates = np.empty(bins[last], np.uint32)
    found = 0
    for i in range(len(bits)):
        key = _sort_key(bits[i], by_size)
        if key >> np.uint32(16) == last:
            candidates[found] = key
            found += 1
    bins[:] = 0
    for key in candidates:
        bins[key & np.uint32(0xFFFF)] += 1
    low = len(bins) - 1
    while bins[low] < wanted:
        wanted -= bins[low]
        low -= 1
    smallest = np.uint32(last << 16 | low)
    for i in range(len(bits)):
        key = _sort_key(bits[i], by_size)
        tied = key == smallest and wanted > 0
        wanted -= tied
        out[i] = np.float32(key > smallest or tied)
