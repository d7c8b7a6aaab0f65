"""Loops that numba compiles when they are first used, for the CPU they run on; what it makes of them is kept on disk.

Import this where a loop is called, not above: numba takes as long to load as all else here that is not torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from llvmlite import binding, ir
from numba import njit
from numba.core import cgutils, config, types
from numba.extending import intrinsic

Floats = npt.NDArray[np.float32]
Loop = TypeVar("Loop", bound=Callable[..., Any])

LANES = 16
"""Vectors that masks are multiplied with at a time: a register of AVX-512."""
_TOLD = config.CPU_FEATURES  # by NUMBA_CPU_NAME or NUMBA_CPU_FEATURES; else numba compiles for the processor at hand
_FEATURES = set((binding.get_host_cpu_features().flatten() if _TOLD is None else _TOLD).split(","))
_ZERO = np.float32(0)
_WORDS = 8
"""Words of 64 weights that are taken of a mask before the next mask: what the memory hands out at once."""
_TILE = 128
"""Masks whose words and sums stay in the nearest cache, beside a table."""
_AHEAD = 16
"""Masks ahead at which words are fetched from memory."""


def _compiled(loop: Loop, **options: Any) -> Loop:
    try:
        found: Loop = njit(cache=True, nogil=True, error_model="numpy", **options)(loop)
    except RuntimeError:  # no folder to keep it in that could be written: then each process compiles for itself
        found = njit(nogil=True, error_model="numpy", **options)(loop)
    return found


def _fast(loop: Loop) -> Loop:
    """May add in any order."""
    return _compiled(loop, fastmath=True)


def _exact(loop: Loop) -> Loop:
    """To the bit the same on every processor: each operation rounded once, in the order written."""
    return _compiled(loop)


@_fast
def add_inner_products(rows: npt.NDArray[np.uint8], planes: Floats, out: npt.NDArray[np.float64]) -> None:
    """Add to `out` (k,) the inner product of each packed mask with a vector.

    rows: (k, bytes). planes: (blocks, 8, B): the vector cut into blocks of 8 B numbers, and of each block the
    numbers that belong to a byte's first bit, those that belong to its second bit, and so on. So B bytes of a mask
    select among eight runs of B numbers, sixteen at a time with AVX-512; a block stays in the nearest cache while all
    masks pass by, and four of them share what is read of it. Sums of a block are float32, sums of blocks float64.
    """
    width = planes.shape[2]
    in_fours = rows.shape[0] // 4 * 4
    for block in range(planes.shape[0]):
        start = block * width
        count = min(width, rows.shape[1] - start)
        for mask in range(0, in_fours, 4):
            row0, row1 = rows[mask, start : start + count], rows[mask + 1, start : start + count]
            row2, row3 = rows[mask + 2, start : start + count], rows[mask + 3, start : start + count]
            total0 = total1 = total2 = total3 = _ZERO
            for bit in range(8):
                plane, chosen = planes[block, bit], np.int32(1 << bit)
                for j in range(count):
                    number = plane[j]
                    total0 += number if np.int32(row0[j]) & chosen else _ZERO
                    total1 += number if np.int32(row1[j]) & chosen else _ZERO
                    total2 += number if np.int32(row2[j]) & chosen else _ZERO
                    total3 += number if np.int32(row3[j]) & chosen else _ZERO
            out[mask] += total0
            out[mask + 1] += total1
            out[mask + 2] += total2
            out[mask + 3] += total3
        for mask in range(in_fours, rows.shape[0]):
            row0, total0 = rows[mask, start : start + count], _ZERO
            for bit in range(8):
                plane, chosen = planes[block, bit], np.int32(1 << bit)
                for j in range(count):
                    total0 += plane[j] if np.int32(row0[j]) & chosen else _ZERO
            out[mask] += total0


@intrinsic  # type: ignore[untyped-decorator]
def _word_at(typing: Any, array: Any, at: Any) -> Any:
    """Eight bytes of a flat array, from index `at`, as one number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        return builder.load(builder.bitcast(start, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(array, at), generate


def _prefetch(builder: Any, place: Any) -> None:
    number, address = ir.IntType(32), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [address, number, number, number])
    fetch = builder.module.declare_intrinsic("llvm.prefetch", [address], kind)
    builder.call(fetch, [place, number(0), number(3), number(1)])  # to be read, soon again, as data


@intrinsic  # type: ignore[untyped-decorator]
def _fetch(typing: Any, array: Any, at: Any) -> Any:
    """Have index `at` of a flat array of bytes brought near, if there is such an index."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        _prefetch(builder, start)
        return context.get_dummy_value()

    return types.void(array, at), generate


def _sum(builder: Any, numbers: list[Any]) -> Any:
    """Of registers of floats: two and two, so that few are rounded one after the other."""
    while len(numbers) > 1:
        odd = numbers[-1:] if len(numbers) % 2 else []
        numbers = [builder.fadd(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=False)] + odd
    return numbers[0]


@intrinsic  # type: ignore[untyped-decorator]
def _add_entries(typing: Any, table: Any, sums: Any, at: Any, word: Any) -> Any:
    """sums[at : at + LANES] += the sum over n of table[n, (word >> 4 n) & 15], both arrays flat, rows of LANES.

    Written for LLVM, since from loops it would make no vectors: it cannot know that `sums` and `table` are apart.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = zip(signature.args[:2], args[:2], strict=True)
        flat = [context.make_array(kind)(context, builder, value).data for kind, value in arrays]
        index = ir.IntType(64)

        def place(array: Any, start: Any) -> Any:
            return builder.bitcast(builder.gep(array, [start]), ir.VectorType(ir.FloatType(), LANES).as_pointer())

        entries = []
        for nibble in range(16):
            number = builder.and_(builder.lshr(args[3], index(4 * nibble)), index(15))
            start = builder.add(builder.mul(number, index(LANES)), index(16 * LANES * nibble))
            entries.append(builder.load(place(flat[0], start), align=4))
        own = place(flat[1], args[2])
        builder.store(builder.fadd(builder.load(own, align=4), _sum(builder, entries)), own, align=4)
        return context.get_dummy_value()

    return types.void(table, sums, at, word), generate


@_exact
def _tabulate(numbers: Floats, table: Floats) -> None:
    """table[n, v] = the sum of those of numbers[4 n : 4 n + 4] whose bit is set in v; rows of LANES."""
    for nibble in range(16):
        for bit in range(4):
            for low in range(1 << bit):
                for lane in range(LANES):
                    number = numbers[4 * nibble + bit, lane]
                    table[nibble, (1 << bit) + low, lane] = table[nibble, low, lane] + number


@_exact
def add_products_together(
    rows: npt.NDArray[np.uint8], ends: npt.NDArray[np.uint8], vectors: Floats, out: npt.NDArray[np.float64]
) -> None:
    """Add to `out` (k, LANES) the inner product of each packed mask with each of up to LANES vectors.

    rows: (k, bytes). ends: (k, 8), the bytes of each row past its last whole eight, filled up with zeros. vectors:
    (up to LANES, size). The four Russians' way: of every four weights the sums of all sixteen choices are made once,
    for all vectors side by side, and half a byte of a mask picks one. The sixteen tables of a word, 16 KB, stay in the
    nearest cache while a tile of masks passes by, and so do the tile's words and sums. Sums of 2048 weights are
    float32, their sums float64.
    """
    num_masks, num_bytes = rows.shape
    num_whole, num_words = num_bytes // 8, (num_bytes + 7) // 8
    tables = np.zeros((_WORDS, 16, 16, LANES), np.float32)
    numbers = np.zeros((64, LANES), np.float32)
    words = np.zeros((_WORDS, _TILE), np.uint64)
    sums = np.zeros((num_masks, LANES), np.float32)
    flat, flat_ends, flat_sums = rows.reshape(rows.size), ends.reshape(ends.size), sums.reshape(sums.size)
    for first in range(0, num_words, _WORDS):
        last = min(first + _WORDS, num_words)
        for word in range(first, last):
            count = min(64, vectors.shape[1] - 64 * word)
            if count < 64:
                numbers[:] = _ZERO
            for lane in range(vectors.shape[0]):
                for j in range(count):
                    numbers[j, lane] = vectors[lane, 64 * word + j]
            _tabulate(numbers, tables[word - first])
        for low in range(0, num_masks, _TILE):
            high = min(low + _TILE, num_masks)
            for mask in range(low, high):
                _fetch(flat, num_bytes * (mask + _AHEAD) + 8 * first)
                for word in range(first, min(last, num_whole)):
                    words[word - first, mask - low] = _word_at(flat, num_bytes * mask + 8 * word)
                if last > num_whole:
                    words[num_whole - first, mask - low] = _word_at(flat_ends, 8 * mask)
            for word in range(last - first):
                table = tables[word].reshape(16 * 16 * LANES)
                for mask in range(low, high):
                    _add_entries(table, flat_sums, LANES * mask, words[word, mask - low])
        if last % 32 == 0 or last == num_words:
            out += sums
            sums[:] = _ZERO


_BITS = 4 if "+avx512f" in _FEATURES else 3
PICKED = 1 << _BITS
"""Numbers of a register, all sums of the choices of _BITS weights, and masks that pick one each side by side."""
PICKS = "+avx2" in _FEATURES
"""Whether what numba compiles for picks them out of a register by as many indices: sixteen with AVX-512, eight with
AVX2."""
_PICK = "llvm.x86.avx512.permvar.sf.512" if PICKED == 16 else "llvm.x86.avx2.permps"
_REGISTER, _INDICES = (ir.VectorType(kind, PICKED) for kind in (ir.FloatType(), ir.IntType(32)))
_GROUPS = -(-32 // _BITS)
"""Tables for a word of 32 weights: eight of four weights, or ten of three and one of two."""
_RUN = 128
"""Words of a mask taken at a time: their tables, 64 or 45 KB, stay in the second cache."""


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """PICKED vectors of as many words as the columns of these: squares of 1, 2, 4, ... words change places."""
    for step in (1 << bit for bit in range(_BITS)):
        changed = []
        for row in range(PICKED):
            places = [n & ~step | row & step | (PICKED if n & step else 0) for n in range(PICKED)]
            pair = rows[row & ~step], rows[row | step]
            changed.append(builder.shuffle_vector(*pair, ir.Constant(_INDICES, places)))
        rows = changed
    return rows


@intrinsic  # type: ignore[untyped-decorator]
def _add_picked(
    typing: Any, rows: Any, starts: Any, offset: Any, count: Any, tables: Any, sums: Any, ahead: Any
) -> Any:
    """Of PICKED masks, add to `sums` what `count` times PICKED words from byte `offset` of each pick from `tables`.

    rows: packed masks, flat, of which those begin at `starts` (PICKED,). tables: PICKED sums for each group of each
    word, flat. What lies `ahead` bytes on is brought near meanwhile. Written for LLVM, which has no name of its own for
    picking from a register by indices.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def data(index: int) -> Any:
            return context.make_array(signature.args[index])(context, builder, args[index]).data

        index = ir.IntType(64)
        rows, tables = data(0), data(4)
        begins = [builder.load(builder.gep(data(1), [index(mask)])) for mask in range(PICKED)]
        pick = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_REGISTER, [_REGISTER, _INDICES]), _PICK)
        totals = [cgutils.alloca_once(builder, _REGISTER) for _ in range(4)]
        for total in totals:
            builder.store(ir.Constant(_REGISTER, None), total)
        with cgutils.for_range(builder, args[3], intp=index) as loop:
            at = builder.add(args[2], builder.mul(loop.index, index(4 * PICKED)))
            places = [builder.gep(rows, [builder.add(begin, at)]) for begin in begins]
            own = [builder.load(builder.bitcast(p, _INDICES.as_pointer()), align=1) for p in places]
            for p in places:
                _prefetch(builder, builder.gep(p, [args[6]]))
            first = builder.mul(loop.index, index(PICKED * _GROUPS * PICKED))
            for word, bits in enumerate(_transposed(builder, own)):
                picked = []
                for group in range(_GROUPS):
                    place = builder.gep(tables, [builder.add(first, index(PICKED * (_GROUPS * word + group)))])
                    table = builder.load(builder.bitcast(place, _REGISTER.as_pointer()), align=4)
                    shift = ir.Constant(_INDICES, [_BITS * group] * PICKED)
                    picked.append(builder.call(pick, [table, builder.lshr(bits, shift) if group else bits]))
                total = totals[word % len(totals)]
                builder.store(builder.fadd(builder.load(total), _sum(builder, picked)), total)
        place = builder.bitcast(data(5), _REGISTER.as_pointer())
        whole = _sum(builder, [builder.load(total) for total in totals])
        builder.store(builder.fadd(builder.load(place, align=4), whole), place, align=4)
        return context.get_dummy_value()

    return types.void(rows, starts, types.int64, types.int64, tables, sums, types.int64), generate


@_exact
def add_products_by_picking(
    rows: npt.NDArray[np.uint8], ends: npt.NDArray[np.uint8], vector: Floats, out: npt.NDArray[np.float64]
) -> None:
    """Add to `out` (k,) the inner product of each packed mask with a vector, on a processor that PICKS.

    rows: (k, bytes). ends: (k, 4 PICKED), the bytes of each row past its last whole 4 PICKED, filled up with zeros. The
    sums of all choices of four weights (with AVX2, of three) fill a register, from which as many bits of each of PICKED
    masks pick one, side by side. Sums of 4096 weights are float32, their sums float64.
    """
    num_masks, num_bytes = rows.shape
    size = 4 * PICKED
    num_whole, num_words = num_bytes // size * PICKED, (num_bytes + size - 1) // size * PICKED
    tables = np.zeros(_RUN * _GROUPS * PICKED, np.float32)
    starts, tails, sums = np.zeros(PICKED, np.int64), np.zeros(PICKED, np.int64), np.zeros(PICKED, np.float32)
    flat, flat_ends = rows.reshape(rows.size), ends.reshape(ends.size)
    for first in range(0, num_words, _RUN):
        last = min(first + _RUN, num_words)
        for word in range(first, last):
            for group in range(_GROUPS):
                table = tables[PICKED * (_GROUPS * (word - first) + group) :]
                weight = 32 * word + _BITS * group
                for bit in range(_BITS):
                    used = weight + bit < len(vector) and _BITS * group + bit < 32
                    number = vector[weight + bit] if used else _ZERO
                    for low in range(1 << bit):
                        table[(1 << bit) + low] = table[low] + number
        whole = (min(last, num_whole) - first) // PICKED
        for mask in range(0, num_masks, PICKED):
            for lane in range(PICKED):
                row = min(mask + lane, num_masks - 1)
                starts[lane], tails[lane] = row * num_bytes, row * size
            sums[:] = _ZERO
            _add_picked(flat, starts, 4 * first, whole, tables, sums, _AHEAD * num_bytes)
            if last > num_whole:
                _add_picked(flat_ends, tails, 0, 1, tables[PICKED * PICKED * _GROUPS * whole :], sums, 0)
            for lane in range(min(PICKED, num_masks - mask)):
                out[mask + lane] += sums[lane]


@_exact
def step_rmsprop(parameter: Floats, gradient: Floats, square_mean: Floats, rate: np.float32) -> None:
    """RMSprop with alpha 0.99 and eps 1e-8 in one pass over flat arrays, in place."""
    for i in range(len(parameter)):
        g = gradient[i]
        mean = square_mean[i] * np.float32(0.99) + np.float32(0.01) * g * g
        square_mean[i] = mean
        parameter[i] -= rate * g / (np.sqrt(mean) + np.float32(1e-8))


@_exact
def _order(bits: np.uint32, by_size: bool) -> np.uint32:
    """A float32's bits as a number that is larger where the float, or its size, is; 0.0 and -0.0 are the same."""
    size = bits & np.uint32(0x7FFFFFFF)
    if by_size:
        return size
    if size != bits and size != 0:
        return np.uint32(0x80000000) - size
    return np.uint32(0x80000000) + size


@_exact
def keep_largest(bits: npt.NDArray[np.uint32], count: int, by_size: bool, out: Floats) -> None:
    """Write a mask of exactly `count` ones on the largest of flat finite float32, given as their bits, by value or by
    size, ties to the lowest index. Three passes: how many there are of each sign, exponent and start of a mantissa;
    which of those among which the smallest that is kept must be; the mask."""
    bins = np.zeros(1 << 16, np.int64)
    for i in range(len(bits)):
        bins[_order(bits[i], by_size) >> np.uint32(16)] += 1
    wanted, last = count, len(bins) - 1
    while bins[last] < wanted:
        wanted -= bins[last]
        last -= 1
    close = np.empty(bins[last], np.uint32)
    found = 0
    for i in range(len(bits)):
        order = _order(bits[i], by_size)
        if order >> np.uint32(16) == last:
            close[found] = order
            found += 1
    bins[:] = 0
    for order in close:
        bins[order & np.uint32(0xFFFF)] += 1
    low = len(bins) - 1
    while bins[low] < wanted:
        wanted -= bins[low]
        low -= 1
    smallest = np.uint32(last << 16 | low)
    for i in range(len(bits)):
        order = _order(bits[i], by_size)
        tied = order == smallest and wanted > 0
        wanted -= tied
        out[i] = np.float32(order > smallest or tied)
