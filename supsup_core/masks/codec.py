"""Masks as bytes: what is stored, and what a task's bytes are counted from.

A blob is 24 bytes of header (magic, version, coding, number of weights, CRC-32 of the packed bits, CRC-32 of a coded
payload) and the payload. It is the packed bits themselves (one bit a weight, eight to a byte, the first weight in the
lowest bit); or, where a mask keeps so few of its weights that this is shorter, those bits range coded: the number of
parts, each part's weights and how many of them are kept, and the coder's words. A part, such as a layer, is coded by
its own density, so that a blob is as long as the entropy of its parts, within half a percent.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import constriction
import numpy as np

from supsup_core.errors import CorruptError

if TYPE_CHECKING:  # with neither this nor an array made here, verbs that look at no mask do without numpy
    import numpy.typing as npt

_HEADER = struct.Struct("<4sHHQII")
_MAGIC = b"SMSK"
_VERSION = 1
_PACKED, _CODED = 0, 1
_PART = [("size", "<u4"), ("ones", "<u4")]
_MOST = 1 << 32
"""Weights of the largest mask that is read: one that is coded may claim any number of them in a few bytes."""
_WORTH_IT = 0.98
"""Masks are coded where that is so much shorter; about one half, where it is not, they are read and written faster."""
_CHUNK = 1 << 22
"""Weights that are coded at a time, which the coder wants as 32-bit integers. A multiple of 8."""

Bits: TypeAlias = "npt.NDArray[np.uint8]"


def num_packed_bytes(size: int) -> int:
    """Bytes that `size` packed bits take."""
    return (size + 7) // 8


def pack(mask: npt.NDArray[np.bool_]) -> Bits:
    """Flat booleans (n,) to packed bits (ceil(n / 8),); unused bits of the last byte are 0."""
    return np.packbits(mask, bitorder="little")


def unpack(bits: Bits, size: int) -> Bits:
    """Packed bits (..., ceil(n / 8)) to uint8 zeros and ones (..., n)."""
    return np.unpackbits(bits, axis=-1, count=size, bitorder="little")


def entropy_bytes(parts: Sequence[tuple[int, int]]) -> float:
    """The entropy, in bytes, of parts of a mask that keep `ones` of `size` weights, for each (size, ones)."""
    sizes, ones = np.array(parts, dtype=np.float64).reshape(-1, 2).T
    shares = np.stack([ones, sizes - ones]) / np.maximum(sizes, 1)
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return float(-(sizes * (shares * logs).sum(0)).sum() / 8)


def encode(bits: Bits, size: int, parts: Sequence[int] = ()) -> bytes:
    """The blob of `size` packed bits. parts: how many weights each layer has, in order; without it, all are one."""
    packed = bits.tobytes()
    mask = unpack(bits, size)
    counted = _counted(mask, parts or (size,))
    coding, payload = _PACKED, packed
    if _table_bytes(counted) + entropy_bytes(counted.tolist()) < _WORTH_IT * len(packed):
        coded = _coded(mask, counted)
        if len(coded) < len(packed):
            coding, payload = _CODED, coded
    check = zlib.crc32(payload) if coding == _CODED else 0
    return _HEADER.pack(_MAGIC, _VERSION, coding, size, zlib.crc32(packed), check) + payload


def decode(blob: bytes) -> tuple[Bits, int]:
    """The packed bits of a blob and their number; CorruptError when it is not what `encode` wrote."""
    if len(blob) < _HEADER.size:
        raise CorruptError(f"mask blob of {len(blob)} bytes is shorter than its header")
    magic, version, coding, size, checksum, check = _HEADER.unpack_from(blob)
    if magic != _MAGIC or version != _VERSION or coding not in (_PACKED, _CODED) or size > _MOST:
        raise CorruptError("not a mask blob of a version this program reads")
    payload = blob[_HEADER.size :]
    if check != (zlib.crc32(payload) if coding == _CODED else 0):
        raise CorruptError("mask blob does not match its checksum")
    bits = _uncoded(payload, size) if coding == _CODED else np.frombuffer(payload, np.uint8)
    if len(bits) != num_packed_bytes(size) or zlib.crc32(bits.tobytes()) != checksum:
        raise CorruptError("mask blob does not match its length and checksum")
    if size % 8 and bits[-1] >> (size % 8):
        raise CorruptError("mask blob has bits set beyond its last weight")
    return bits, size


def _counted(mask: Bits, parts: Sequence[int]) -> npt.NDArray[np.void]:
    """Each part's size and how many of its weights are kept."""
    ends = np.cumsum(parts)
    assert ends[-1] == len(mask), "the parts are the whole mask"
    found = np.zeros(len(parts), _PART)
    found["size"] = parts
    found["ones"] = [int(mask[end - part : end].sum()) for end, part in zip(ends, parts, strict=True)]
    return found


def _table_bytes(counted: npt.NDArray[np.void]) -> int:
    return 4 + counted.nbytes


def _stretches(counted: npt.NDArray[np.void]) -> list[tuple[int, int, float]]:
    """What is coded, in order: start, end and density. Parts that keep all or nothing need no word."""
    found = []
    start = 0
    for size, ones in counted.tolist():
        if 0 < ones < size:
            found += [(at, min(at + _CHUNK, start + size), ones / size) for at in range(start, start + size, _CHUNK)]
        start += size
    return found


def _coded(mask: Bits, counted: npt.NDArray[np.void]) -> bytes:
    coder = constriction.stream.queue.RangeEncoder()
    for start, end, density in _stretches(counted):
        model = constriction.stream.model.Bernoulli(density, perfect=False)
        coder.encode(mask[start:end].astype(np.int32), model)
    words: npt.NDArray[np.uint32] = coder.get_compressed().astype("<u4")
    return struct.pack("<I", len(counted)) + counted.tobytes() + words.tobytes()


def _uncoded(payload: bytes, size: int) -> Bits:
    """The packed bits of a coded payload; CorruptError where it is none."""
    (count,) = struct.unpack_from("<I", payload) if len(payload) >= 4 else (0,)
    table = 4 + count * np.dtype(_PART).itemsize
    if len(payload) < table or (len(payload) - table) % 4:
        raise CorruptError("mask blob is cut short")
    counted = np.frombuffer(payload, _PART, count, 4)
    sizes, ones = counted["size"].astype(np.uint64), counted["ones"]
    if int(sizes.sum()) != size or (ones > counted["size"]).any():
        raise CorruptError("mask blob has parts that are not its mask")
    mask = np.repeat(ones == counted["size"], counted["size"])
    coder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, "<u4", offset=table).astype(np.uint32))
    try:
        for start, end, density in _stretches(counted):
            model = constriction.stream.model.Bernoulli(density, perfect=False)
            mask[start:end] = coder.decode(model, end - start)
    except AssertionError as error:  # the coder's, of words that it cannot have written
        raise CorruptError(f"mask blob holds no mask ({error})") from error
    return pack(mask)
