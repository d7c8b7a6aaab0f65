"""Inner products of packed masks with vectors, as compiled loops.

Three functions compute the same inner products by different algorithms. `add_products_by_planes` runs on any processor.
`add_products_by_lookup` multiplies the masks with up to LANES vectors side by side, and looks up half a byte of a mask
at a time in a table. `add_products_by_permutation` uses a vector register as the table, and needs AVX2 or AVX-512. LLVM
intrinsics replace loops that LLVM would not vectorise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from supsup_core.kernels.compilation import CPU_FEATURES, Floats, compile_any_order, compile_exact

LANES = 16
"""The number of vectors multiplied at a time: an AVX-512 register holds this many floats."""
_ZERO = np.float32(0)
_WORDS = 8
"""The number of 64-bit words (64 weights each) that are read from one mask before the next mask. Eight words fill a
cache line."""
_TILE = 128
"""The number of masks in a tile. The words and sums of a tile, together with the tables of one word, fit into the L1
cache."""
_AHEAD = 16
"""The prefetch distance, in masks: a word is prefetched while the words of this many earlier masks are still to be
read."""


@compile_any_order
def add_products_by_planes(rows: npt.NDArray[np.uint8], planes: Floats, out: npt.NDArray[np.float64]) -> None:
    """Add to `out` (k,) the inner product of each packed mask with a vector.

    rows: (k, bytes). planes: (blocks, 8, B), the vector cut into blocks of 8 B numbers. A block belongs to B bytes of a
    mask. Plane b of a block holds the B numbers that bit b of these bytes selects. The inner loop tests one bit in all
    B bytes and is vectorised: with AVX-512 it adds sixteen numbers at a time. A block stays in the L1 cache until all
    masks have used it, and four masks share each read of the block. The sum over a block is computed in float32. The
    sums of all blocks are added in float64.
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
    """Read eight bytes of a flat array, starting at index `at`, as one 64-bit integer."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        return builder.load(builder.bitcast(start, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(array, at), generate


def _emit_prefetch(builder: Any, place: Any) -> None:
    number, address = ir.IntType(32), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [address, number, number, number])
    fetch = builder.module.declare_intrinsic("llvm.prefetch", [address], kind)
    builder.call(fetch, [place, number(0), number(3), number(1)])  # read, high locality, data cache


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(typing: Any, array: Any, at: Any) -> Any:
    """Prefetch index `at` of a flat array of bytes. An index past the array's end is harmless."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        _emit_prefetch(builder, start)
        return context.get_dummy_value()

    return types.void(array, at), generate


def _emit_sum(builder: Any, numbers: list[Any]) -> Any:
    """Emit the sum of several vector registers.

    The registers are added in pairs, so that rounding errors grow only with the logarithm of the number of registers.
    """
    while len(numbers) > 1:
        odd = numbers[-1:] if len(numbers) % 2 else []
        numbers = [builder.fadd(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=False)] + odd
    return numbers[0]


@intrinsic  # type: ignore[untyped-decorator]
def _add_entries(typing: Any, table: Any, sums: Any, at: Any, word: Any) -> Any:
    """Add to sums[at : at + LANES] the sum over n of table[n, (word >> 4 n) & 15]. Both arrays are flat.

    The function is an intrinsic because LLVM would not vectorise a loop: LLVM cannot know that `sums` and `table` do
    not overlap.
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
        builder.store(builder.fadd(builder.load(own, align=4), _emit_sum(builder, entries)), own, align=4)
        return context.get_dummy_value()

    return types.void(table, sums, at, word), generate


@compile_exact
def _tabulate(numbers: Floats, table: Floats) -> None:
    """Set table[n, v] to the sum of the rows 4 n + b of `numbers`, for all bits b (0 to 3) that are set in v.

    A row has LANES floats.
    """
    for nibble in range(16):
        for bit in range(4):
            for low in range(1 << bit):
                for lane in range(LANES):
                    number = numbers[4 * nibble + bit, lane]
                    table[nibble, (1 << bit) + low, lane] = table[nibble, low, lane] + number


@compile_exact
def add_products_by_lookup(
    rows: npt.NDArray[np.uint8], ends: npt.NDArray[np.uint8], vectors: Floats, out: npt.NDArray[np.float64]
) -> None:
    """Add to `out` (k, LANES) the inner product of each packed mask with each of up to LANES vectors.

    rows: (k, bytes). ends: (k, 8), the bytes of each row after its last full group of eight, padded with zeros.
    vectors: (up to LANES, size).

    The algorithm is the method of the Four Russians. For every four weights, a table holds the sums of all sixteen
    subsets, for all vectors side by side. Half a byte of a mask is an index into the table. The sixteen tables of a
    word (16 KB) stay in the L1 cache for a whole tile of masks, together with the tile's words and sums. Sums over 2048
    weights are computed in float32. These partial sums are added in float64.
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
                _prefetch(flat, num_bytes * (mask + _AHEAD) + 8 * first)
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


_BITS = 4 if "+avx512f" in CPU_FEATURES else 3
REGISTER_LANES = 1 << _BITS
"""The number of floats in a vector register. A register holds a table: the sums of all subsets of _BITS weights. One
permutation of the register looks up one sum for each of REGISTER_LANES masks."""
HAS_PERMUTATION = "+avx2" in CPU_FEATURES
"""Whether the processor that numba compiles for can permute a register by REGISTER_LANES indices."""
_PERMUTE = "llvm.x86.avx512.permvar.sf.512" if REGISTER_LANES == 16 else "llvm.x86.avx2.permps"
_REGISTER, _INDICES = (ir.VectorType(kind, REGISTER_LANES) for kind in (ir.FloatType(), ir.IntType(32)))
_GROUPS = -(-32 // _BITS)
"""The number of tables for a word of 32 weights: eight tables of four weights (AVX-512), or ten of three and one of two
(AVX2)."""
_RUN = 128
"""The number of 32-bit words that are read from one mask before the next mask. The tables of these words (64 or 45 KB)
stay in the L2 cache."""


def _emit_transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Emit the transpose of a square matrix, whose rows are registers, by swapping squares of 1, 2, 4, ... words."""
    for step in (1 << bit for bit in range(_BITS)):
        changed = []
        for row in range(REGISTER_LANES):
            places = [n & ~step | row & step | (REGISTER_LANES if n & step else 0) for n in range(REGISTER_LANES)]
            pair = rows[row & ~step], rows[row | step]
            changed.append(builder.shuffle_vector(*pair, ir.Constant(_INDICES, places)))
        rows = changed
    return rows


@intrinsic  # type: ignore[untyped-decorator]
def _add_permuted(
    typing: Any, rows: Any, starts: Any, offset: Any, count: Any, tables: Any, sums: Any, ahead: Any
) -> Any:
    """Add to `sums`, for each of REGISTER_LANES masks, the table entries that the mask's words select.

    rows: packed masks, flat. starts: (REGISTER_LANES,), the index in `rows` at which each mask begins. From byte
    `offset` of each mask, `count` times REGISTER_LANES words are read. tables: REGISTER_LANES sums for each group of
    each word, flat. ahead: the distance, in bytes, between the data being read and the data to prefetch. The function
    is an intrinsic because numba has no function that permutes a register by indices.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def data(index: int) -> Any:
            return context.make_array(signature.args[index])(context, builder, args[index]).data

        index = ir.IntType(64)
        rows, tables = data(0), data(4)
        begins = [builder.load(builder.gep(data(1), [index(mask)])) for mask in range(REGISTER_LANES)]
        permute = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_REGISTER, [_REGISTER, _INDICES]), _PERMUTE
        )
        totals = [cgutils.alloca_once(builder, _REGISTER) for _ in range(4)]
        for total in totals:
            builder.store(ir.Constant(_REGISTER, None), total)
        with cgutils.for_range(builder, args[3], intp=index) as loop:
            at = builder.add(args[2], builder.mul(loop.index, index(4 * REGISTER_LANES)))
            places = [builder.gep(rows, [builder.add(begin, at)]) for begin in begins]
            own = [builder.load(builder.bitcast(p, _INDICES.as_pointer()), align=1) for p in places]
            for p in places:
                _emit_prefetch(builder, builder.gep(p, [args[6]]))
            first = builder.mul(loop.index, index(REGISTER_LANES * _GROUPS * REGISTER_LANES))
            for word, bits in enumerate(_emit_transpose(builder, own)):
                found = []
                for group in range(_GROUPS):
                    place = builder.gep(tables, [builder.add(first, index(REGISTER_LANES * (_GROUPS * word + group)))])
                    table = builder.load(builder.bitcast(place, _REGISTER.as_pointer()), align=4)
                    shift = ir.Constant(_INDICES, [_BITS * group] * REGISTER_LANES)
                    found.append(builder.call(permute, [table, builder.lshr(bits, shift) if group else bits]))
                total = totals[word % len(totals)]
                builder.store(builder.fadd(builder.load(total), _emit_sum(builder, found)), total)
        place = builder.bitcast(data(5), _REGISTER.as_pointer())
        whole = _emit_sum(builder, [builder.load(total) for total in totals])
        builder.store(builder.fadd(builder.load(place, align=4), whole), place, align=4)
        return context.get_dummy_value()

    return types.void(rows, starts, types.int64, types.int64, tables, sums, types.int64), generate


@compile_exact
def add_products_by_permutation(
    rows: npt.NDArray[np.uint8], ends: npt.NDArray[np.uint8], vector: Floats, out: npt.NDArray[np.float64]
) -> None:
    """Add to `out` (k,) the inner product of each packed mask with a vector. HAS_PERMUTATION must be True.

    rows: (k, bytes). ends: (k, 4 REGISTER_LANES), the bytes of each row after its last full block of 4 REGISTER_LANES
    bytes, padded with zeros. A register holds the sums of all subsets of four weights (three with AVX2). One
    permutation looks up one sum for each of REGISTER_LANES masks, indexed by four (three) bits of the mask. Sums over
    4096 weights are computed in float32. These partial sums are added in float64.
    """
    num_masks, num_bytes = rows.shape
    size = 4 * REGISTER_LANES
    num_whole, num_words = num_bytes // size * REGISTER_LANES, (num_bytes + size - 1) // size * REGISTER_LANES
    tables = np.zeros(_RUN * _GROUPS * REGISTER_LANES, np.float32)
    starts, tails, sums = (
        np.zeros(REGISTER_LANES, np.int64),
        np.zeros(REGISTER_LANES, np.int64),
        np.zeros(REGISTER_LANES, np.float32),
    )
    flat, flat_ends = rows.reshape(rows.size), ends.reshape(ends.size)
    for first in range(0, num_words, _RUN):
        last = min(first + _RUN, num_words)
        for word in range(first, last):
            for group in range(_GROUPS):
                table = tables[REGISTER_LANES * (_GROUPS * (word - first) + group) :]
                weight = 32 * word + _BITS * group
                for bit in range(_BITS):
                    used = weight + bit < len(vector) and _BITS * group + bit < 32
                    number = vector[weight + bit] if used else _ZERO
                    for low in range(1 << bit):
                        table[(1 << bit) + low] = table[low] + number
        whole = (min(last, num_whole) - first) // REGISTER_LANES
        for mask in range(0, num_masks, REGISTER_LANES):
            for lane in range(REGISTER_LANES):
                row = min(mask + lane, num_masks - 1)
                starts[lane], tails[lane] = row * num_bytes, row * size
            sums[:] = _ZERO
            _add_permuted(flat, starts, 4 * first, whole, tables, sums, _AHEAD * num_bytes)
            if last > num_whole:
                _add_permuted(
                    flat_ends, tails, 0, 1, tables[REGISTER_LANES * REGISTER_LANES * _GROUPS * whole :], sums, 0
                )
            for lane in range(min(REGISTER_LANES, num_masks - mask)):
                out[mask + lane] += sums[lane]
