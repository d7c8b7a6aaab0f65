"""Masks as bytes: what is stored, and what a task's bytes are counted from.

A blob is 24 bytes of header (magic, version, coding, number of weights, CRC-32 of the payload) and the
payload: one bit a weight, eight to a byte, the first weight in the lowest bit.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

from supsup_core.errors import CorruptError

_HEADER = struct.Struct("<4sHHQII")
_MAGIC = b"SMSK"
_VERSION = 1
_PACKED = 0

Bits = npt.NDArray[np.uint8]

BYTES: Bits = np.arange(256, dtype=np.uint8)
"""Every byte there is."""


def num_packed_bytes(size: int) -> int:
    """Bytes that `size` packed bits take."""
    return (size + 7) // 8


def pack(mask: npt.NDArray[np.bool_]) -> Bits:
    """Flat booleans (n,) to packed bits (ceil(n / 8),); unused bits of the last byte are 0."""
    return np.packbits(mask, bitorder="little")


def unpack(bits: Bits, size: int) -> Bits:
    """Packed bits (..., ceil(n / 8)) to uint8 zeros and ones (..., n)."""
    return np.unpackbits(bits, axis=-1, count=size, bitorder="little")


def encode(bits: Bits, size: int) -> bytes:
    """The blob of `size` packed bits."""
    payload = bits.tobytes()
    header = _HEADER.pack(_MAGIC, _VERSION, _PACKED, size, zlib.crc32(payload), 0)
    return header + payload


def decode(blob: bytes) -> tuple[Bits, int]:
    """The packed bits of a blob and their number; CorruptError when it is not what `encode` wrote."""
    if len(blob) < _HEADER.size:
        raise CorruptError(f"mask blob of {len(blob)} bytes is shorter than its header")
    magic, version, coding, size, checksum, reserved = _HEADER.unpack_from(blob)
    if magic != _MAGIC or version != _VERSION or coding != _PACKED or reserved:
        raise CorruptError("not a mask blob of a version this program reads")
    payload = blob[_HEADER.size :]
    if len(payload) != num_packed_bytes(size) or zlib.crc32(payload) != checksum:
        raise CorruptError("mask blob does not match its length and checksum")
    bits = np.frombuffer(payload, np.uint8)
    if size % 8 and bits[-1] >> (size % 8):
        raise CorruptError("mask blob has bits set beyond its last weight")
    return bits, size
