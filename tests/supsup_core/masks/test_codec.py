"""The mask codec: round trips, lengths near the entropy, and detection of damage."""

import math
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supsup_core.errors import CorruptError
from supsup_core.masks import codec


@st.composite
def layered(draw: st.DrawFn) -> list[npt.NDArray[np.bool_]]:
    """Draws the layers of a mask with different densities. Some layers keep all weights, and some keep none."""
    sizes = draw(st.lists(st.integers(1, 3000), min_size=1, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return [rng.random(size) < draw(st.sampled_from([0, 0.001, 0.01, 0.1, 0.5, 1])) for size in sizes]


@given(layered(), st.booleans())
def test_codec_round_trip(layers: list[npt.NDArray[np.bool_]], told: bool) -> None:
    mask = np.concatenate(layers)
    bits = codec.pack(mask)
    assert len(bits) == codec.num_packed_bytes(len(mask))
    blob = codec.encode(bits, len(mask), [len(layer) for layer in layers] if told else [])
    assert len(blob) <= 24 + len(bits)
    found, size = codec.decode(blob)
    assert size == len(mask)
    assert codec.unpack(found, size).tolist() == mask.tolist()


@pytest.mark.parametrize("density", [0.5, 0.1, 0.05, 0.01])
def test_a_blob_is_as_long_as_the_entropy_of_its_mask(density: float) -> None:
    """The mask has a million weights in two layers, one ten times as dense as the other. The tolerance is one percent,
    including the header."""
    rng = np.random.default_rng(0)
    layers = [rng.random(900_000) < density, rng.random(100_000) < min(0.5, 10 * density)]
    mask = np.concatenate(layers)
    blob = codec.encode(codec.pack(mask), len(mask), [len(layer) for layer in layers])
    bound = codec.entropy_bytes([(len(layer), int(layer.sum())) for layer in layers])
    assert bound == pytest.approx(entropy_of(layers), rel=1e-12)
    assert len(blob) < 1.01 * bound


def entropy_of(layers: list[npt.NDArray[np.bool_]]) -> float:
    """Returns the entropy in bytes: the sum over layers of -n (p log2 p + q log2 q) / 8."""
    found = 0.0
    for layer in layers:
        p = float(layer.mean())
        found -= len(layer) * (p * math.log2(p) + (1 - p) * math.log2(1 - p)) / 8
    return found


@given(st.integers(0, 2000), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), max_size=4), st.binary())
def test_a_forged_blob_is_refused(size: int, parts: list[tuple[int, int]], words: bytes) -> None:
    """The payload's checksum is correct, so only the decoder and the mask's checksum can detect the forgery."""
    table = b"".join(struct.pack("<II", *part) for part in parts)
    payload = struct.pack("<I", len(parts)) + table + words
    header = struct.pack("<4sHHQII", b"SMSK", 1, 1, size, 1234567, zlib.crc32(payload))
    with pytest.raises(CorruptError):
        codec.decode(header + payload)


@pytest.mark.parametrize("step", [3, 70])  # packed, and coded
def test_every_flipped_byte_and_every_truncation_of_a_blob_is_detected(step: int) -> None:
    blob = codec.encode(codec.pack(np.arange(700) % step == 0), 700)
    assert (len(blob) < 24 + 88) == (step == 70)
    for at in range(len(blob)):
        bad = bytearray(blob)
        bad[at] ^= 0x10
        with pytest.raises(CorruptError):
            codec.decode(bytes(bad))
    for length in range(len(blob)):
        with pytest.raises(CorruptError):
            codec.decode(blob[:length])
