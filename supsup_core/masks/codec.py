"""The format in which masks are stored.

A mask is stored as a blob: a header and a payload. The header has 24 bytes: magic, version, coding, number of weights,
CRC-32 of the packed bits, and CRC-32 of the payload if it is range-coded (else 0). The payload is the packed bits: one
bit for each weight, the first weight in the lowest bit of the first byte.

If range coding (a form of arithmetic coding) saves enough bytes, the payload is range-coded instead. The mask is then
divided into parts, usually its layers, and each part is coded with a Bernoulli model of the part's density. The payload
holds the number of parts, the size and the number of ones of each part, and the words from the range coder. The length
of the blob is within half a percent of the entropy of the parts.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import constriction
import numpy as np

from supsup_core.errors import CorruptError

if TYPE_CHECKING:  # only annotations need it
    import numpy.typing as npt

_HEADER = struct.Struct("<4sHHQII")
_MAGIC = b"SMSK"
_VERSION = 1
_PACKED, _CODED = 0, 1
_PART = [("size", "<u4"), ("ones", "<u4")]
_MOST_WEIGHTS = 1 << 32
"""The largest number of weights that `decode` accepts. Without this limit, a corrupt blob of a few bytes could claim
any number of weights, and `decode` would allocate memory for them."""
_LARGEST_SHARE = 0.98
"""A mask is range-coded only if its coded length is less than this share of its packed length. Packed masks are faster
to read."""
_CHUNK = 1 << 22
"""The number of weights coded at a time, a multiple of 8. Coding by chunks bounds memory, since each weight is expanded
to a 32-bit integer."""

Bits: TypeAlias = "npt.NDArray[np.uint8]"


def num_packed_bytes(size: int) -> int:
    """The number of bytes of `size` packed bits."""
    return (size + 7) // 8


def pack(mask: npt.NDArray[np.bool_]) -> Bits:
    """Pack flat booleans (n,) to bits (ceil(n / 8),). Unused bits of the last byte are 0."""
    return np.packbits(mask, bitorder="little")


def unpack(bits: Bits, size: int) -> Bits:
    """Unpack bits (..., ceil(n / 8)) to uint8 zeros and ones (..., n)."""
    return np.unpackbits(bits, axis=-1, count=size, bitorder="little")


def entropy_bytes(parts: Sequence[tuple[int, int]]) -> float:
    """The entropy, in bytes, of a mask with parts (size, ones): `ones` of the `size` weights of a part are kept."""
    sizes, ones = np.array(parts, dtype=np.float64).reshape(-1, 2).T
    shares = np.stack([ones, sizes - ones]) / np.maximum(sizes, 1)
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return float(-(sizes * (shares * logs).sum(0)).sum() / 8)


def encode(bits: Bits, size: int, parts: Sequence[int] = ()) -> bytes:
    """Returns the blob of a packed mask of `size` weights.

    parts: the number of weights in each part, or () if the mask is a single part.
    """
    packed = bits.tobytes()
    mask = unpack(bits, size)
    counted = _count_ones(mask, parts or (size,))
    coding, payload = _PACKED, packed
    if _table_bytes(counted) + entropy_bytes(counted.tolist()) < _LARGEST_SHARE * len(packed):
        coded = _range_encode(mask, counted)
        if len(coded) < len(packed):
            coding, payload = _CODED, coded
    check = zlib.crc32(payload) if coding == _CODED else 0
    return _HEADER.pack(_MAGIC, _VERSION, coding, size, zlib.crc32(packed), check) + payload


def decode(blob: bytes) -> tuple[Bits, int]:
    """Returns the packed mask in a blob, and its number of weights. Raises CorruptError if the blob is damaged."""
    if len(blob) < _HEADER.size:
        raise CorruptError(f"mask blob of {len(blob)} bytes is shorter than its header")
    magic, version, coding, size, checksum, check = _HEADER.unpack_from(blob)
    if magic != _MAGIC or version != _VERSION or coding not in (_PACKED, _CODED) or size > _MOST_WEIGHTS:
        raise CorruptError("the bytes are not a mask blob, or have a format that this version of supsup cannot read")
    payload = blob[_HEADER.size :]
    if check != (zlib.crc32(payload) if coding == _CODED else 0):
        raise CorruptError("mask blob does not match its checksum")
    bits = _range_decode(payload, size) if coding == _CODED else np.frombuffer(payload, np.uint8)
    if len(bits) != num_packed_bytes(size) or zlib.crc32(bits.tobytes()) != checksum:
        raise CorruptError("mask blob does not match its length and checksum")
    if size % 8 and bits[-1] >> (size % 8):
        raise CorruptError("mask blob has bits set beyond its last weight")
    return bits, size


def _count_ones(mask: Bits, parts: Sequence[int]) -> npt.NDArray[np.void]:
    """The size and the number of ones of each part, as a structured array (parts,) with the fields of _PART."""
    ends = np.cumsum(parts)
    assert ends[-1] == len(mask), "the sizes of the parts must add up to the size of the mask"
    found = np.zeros(len(parts), _PART)
    found["size"] = parts
    found["ones"] = [int(mask[end - part : end].sum()) for end, part in zip(ends, parts, strict=True)]
    return found


def _table_bytes(counted: npt.NDArray[np.void]) -> int:
    return 4 + counted.nbytes


def _coded_ranges(counted: npt.NDArray[np.void]) -> list[tuple[int, int, float]]:
    """The ranges of weights to code, in order, each as (start, end, density).

    Parts that keep all or none of their weights are left out.
    """
    found = []
    start = 0
    for size, ones in counted.tolist():
        if 0 < ones < size:
            found += [(at, min(at + _CHUNK, start + size), ones / size) for at in range(start, start + size, _CHUNK)]
        start += size
    return found


def _range_encode(mask: Bits, counted: npt.NDArray[np.void]) -> bytes:
    coder = constriction.stream.queue.RangeEncoder()
    for start, end, density in _coded_ranges(counted):
        model = constriction.stream.model.Bernoulli(density, perfect=False)
        coder.encode(mask[start:end].astype(np.int32), model)
    words: npt.NDArray[np.uint32] = coder.get_compressed().astype("<u4")
    return struct.pack("<I", len(counted)) + counted.tobytes() + words.tobytes()


def _range_decode(payload: bytes, size: int) -> Bits:
    """The packed bits in a range-coded payload of `size` weights. Raises CorruptError if the payload is not valid."""
    (count,) = struct.unpack_from("<I", payload) if len(payload) >= 4 else (0,)
    table = 4 + count * np.dtype(_PART).itemsize
    if len(payload) < table or (len(payload) - table) % 4:
        raise CorruptError("mask blob is truncated")
    counted = np.frombuffer(payload, _PART, count, 4)
    sizes, ones = counted["size"].astype(np.uint64), counted["ones"]
    if int(sizes.sum()) != size or (ones > counted["size"]).any():
        raise CorruptError("mask blob has parts whose sizes do not fit its mask")
    mask = np.repeat(ones == counted["size"], counted["size"])
    coder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, "<u4", offset=table).astype(np.uint32))
    try:
        for start, end, density in _coded_ranges(counted):
            model = constriction.stream.model.Bernoulli(density, perfect=False)
            mask[start:end] = coder.decode(model, end - start)
    except AssertionError as error:  # the decoder raises it for words that no encoder can have written
        raise CorruptError(f"mask blob has 32-bit words that cannot be decoded ({error})") from error
    return pack(mask)
