"""Masks: exact top-k, codec, bank."""

import math
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supsup_core.errors import CorruptError, InputError
from supsup_core.kernels.compiled import LANES, PICKS
from supsup_core.masks import MaskBank, Threshold, TopK, codec, draw_scores, num_kept, top_k_mask
from supsup_core.masks.products import (
    inner_products,
    multiplied,
    selected_by_picking,
    selected_by_planes,
    selected_together,
)
from supsup_core.nets import Layer

LAYERS = (Layer("a", (7, 5), 5), Layer("b", (3, 7), 7))


def by_sorting(ranked: list[float], count: int) -> list[float]:
    """The definition: the largest `count`, ties to the lowest index."""
    kept = sorted(range(len(ranked)), key=lambda i: (-ranked[i], i))[:count]
    return [1.0 if i in kept else 0.0 for i in range(len(ranked))]


few_values = st.sampled_from([-1.5, -1.0, -0.0, 0.0, 0.25, 0.5, 1.0, 2.0])
any_values = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(few_values | any_values, min_size=1, max_size=60), st.booleans(), st.data())
def test_top_k_is_exact_with_ties_to_the_lowest_index(values: list[float], by_size: bool, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(values)))
    wanted = by_sorting([abs(value) if by_size else value for value in values], count)
    scores = torch.tensor(values)
    assert top_k_mask(scores, count, by_size).tolist() == wanted
    strided = torch.stack([scores, scores], 1)[:, 0]  # what is not flat goes the way of every other device
    assert top_k_mask(strided, count, by_size).tolist() == wanted


@pytest.mark.parametrize(("density", "size", "kept"), [(0.5, 10, 5), (0.001, 10, 1), (1.0, 10, 10), (0.25, 10, 2)])
def test_density_keeps_that_share(density: float, size: int, kept: int) -> None:
    assert num_kept(density, size) == kept
    for rank_abs in (True, False):
        scores = torch.linspace(-1, 1, size)
        assert int(TopK(density, rank_abs).mask(scores, torch.empty(size)).sum()) == kept


def test_ranks_differ_in_what_they_keep_and_where_the_gradient_goes() -> None:
    scores = torch.tensor([-3.0, 2.0, 1.0, -0.5])
    by_abs, by_raw = TopK(0.5, True), TopK(0.5, False)
    assert by_abs.mask(scores, torch.empty(4)).tolist() == [1, 1, 0, 0]
    assert by_raw.mask(scores, torch.empty(4)).tolist() == [0, 1, 1, 0]
    assert by_abs.to_scores(scores, torch.ones(4)).tolist() == [-1, 1, 1, -1]
    assert by_raw.to_scores(scores, torch.ones(4)).tolist() == [1, 1, 1, 1]


def test_threshold_keeps_zero() -> None:
    assert Threshold().mask(torch.tensor([-0.1, 0.0, 0.1]), torch.empty(3)).tolist() == [0, 1, 1]


@pytest.mark.parametrize("density", [0.0, -0.1, 1.01])
def test_density_outside_its_range_is_refused(density: float) -> None:
    with pytest.raises(InputError, match=r"density: must be in \(0, 1\]"):
        TopK(density, True)


def test_scores_are_kaiming_uniform() -> None:
    a, b = draw_scores((Layer("w", (400, 100), 100), Layer("v", (10, 25), 25)), 0, 0)
    assert 0.099 < a.abs().max() <= 0.1
    assert 0.19 < b.abs().max() <= 0.2
    assert abs(float(a.mean())) < 0.002


@st.composite
def layered(draw: st.DrawFn) -> list[npt.NDArray[np.bool_]]:
    """A mask's layers, each of a density of its own; some keep all, some nothing."""
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
def test_a_mask_takes_its_entropy(density: float) -> None:
    """A million weights in layers of which one keeps ten times as many: within one percent, header included."""
    rng = np.random.default_rng(0)
    layers = [rng.random(900_000) < density, rng.random(100_000) < min(0.5, 10 * density)]
    mask = np.concatenate(layers)
    blob = codec.encode(codec.pack(mask), len(mask), [len(layer) for layer in layers])
    bound = codec.entropy_bytes([(len(layer), int(layer.sum())) for layer in layers])
    assert bound == pytest.approx(entropy_of(layers), rel=1e-12)
    assert len(blob) < 1.01 * bound


def entropy_of(layers: list[npt.NDArray[np.bool_]]) -> float:
    """The plain sum of -n (p log2 p + q log2 q) / 8."""
    found = 0.0
    for layer in layers:
        p = float(layer.mean())
        found -= len(layer) * (p * math.log2(p) + (1 - p) * math.log2(1 - p)) / 8
    return found


@given(st.integers(0, 2000), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), max_size=4), st.binary())
def test_a_blob_that_nobody_wrote_is_no_mask(size: int, parts: list[tuple[int, int]], words: bytes) -> None:
    """Checksums of the payload that fit: what is left is the coder's own defence, and the checksum of the mask."""
    table = b"".join(struct.pack("<II", *part) for part in parts)
    payload = struct.pack("<I", len(parts)) + table + words
    header = struct.pack("<4sHHQII", b"SMSK", 1, 1, size, 1234567, zlib.crc32(payload))
    with pytest.raises(CorruptError):
        codec.decode(header + payload)


@pytest.mark.parametrize("step", [3, 70])  # packed, and coded
def test_every_flipped_byte_of_a_blob_is_found(step: int) -> None:
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


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(0, 2**31), st.data())
def test_bank_agrees_with_dense_masks(num_masks: int, seed: int, data: st.DataObject) -> None:
    drawn = np.random.default_rng(seed)
    masks = drawn.random((num_masks, 56)) < 0.4
    bank = MaskBank(LAYERS)
    for index, mask in enumerate(masks):
        assert bank.add(codec.pack(mask)) == index
    dense = torch.from_numpy(masks.astype(np.float32))
    flat = torch.cat([piece.flatten() for piece in bank.mask(num_masks - 1)])
    assert torch.equal(flat, dense[-1])
    mean = torch.cat([piece.flatten() for piece in bank.mean()])
    assert torch.equal(mean, torch.from_numpy(masks.sum(0).astype(np.float32)) / num_masks)
    vectors = torch.from_numpy(drawn.standard_normal((3, 56)).astype(np.float32))
    torch.testing.assert_close(bank.products(vectors), vectors @ dense.t())
    subset = torch.tensor(sorted(data.draw(st.sets(st.integers(0, num_masks - 1), min_size=1))))
    torch.testing.assert_close(bank.products(vectors, subset), vectors @ dense[subset].t())
    some = torch.cat([piece.flatten() for piece in bank.subset_mean(subset)])
    torch.testing.assert_close(some, dense[subset].mean(0))


def test_products_are_the_same_in_pieces_and_on_any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = np.random.default_rng(0).random((9, 56)) < 0.5
    bank = MaskBank(LAYERS)
    for mask in masks:
        bank.add(codec.pack(mask))
    vectors = torch.randn(2, 56, generator=torch.Generator().manual_seed(0))
    whole = bank.products(vectors)
    monkeypatch.setattr("supsup_core.masks.products._BLOCK", 3)
    torch.testing.assert_close(selected_by_planes(bank.rows, vectors), whole)
    torch.testing.assert_close(multiplied(bank.rows, bank.size, vectors), whole)
    monkeypatch.setattr("supsup_core.masks.products._CHUNK_BYTES", 2 * 32 * 7)
    torch.testing.assert_close(multiplied(bank.rows, bank.size, vectors), whole)


KERNELS = [selected_by_planes, selected_together] + ([selected_by_picking] if PICKS else [])


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(st.integers(1, 20), st.integers(120, 140)),
    st.integers(1, 40),
    st.one_of(st.integers(1, 1300), st.integers(4000, 8700)),
    st.integers(0, 2**31),
)
def test_every_kernel_gives_the_products_of_packed_masks(num_masks: int, count: int, size: int, seed: int) -> None:
    """Whole and broken runs, words and groups of masks."""
    drawn = np.random.default_rng(seed)
    masks = drawn.random((num_masks, size)) < 0.4
    rows = np.stack([codec.pack(mask) for mask in masks])
    vectors = torch.from_numpy(drawn.standard_normal((count, size)).astype(np.float32))
    exact = vectors.double() @ torch.from_numpy(masks.astype(np.float64)).t()
    together = inner_products(rows, size, vectors)
    alone = torch.cat([inner_products(rows, size, vector[None]) for vector in vectors])
    some = [(kernel(rows, vectors[:LANES]), exact[:LANES]) for kernel in KERNELS]
    lengths = vectors.double().norm(dim=1, keepdim=True)
    for products, wanted in [(together, exact), (alone, exact), *some]:
        assert products.shape == wanted.shape  # each rounds in its own order; no error follows its element's size,
        assert ((products - wanted).abs() <= 1.5e-6 * lengths[: len(wanted)]).all()  # which may be next to nothing


PRODUCTS = """
import numpy as np, torch
from supsup_core.compiled import PICKED, PICKS
from supsup_core.masks.products import multiplied, selected
rows = np.random.default_rng(0).integers(0, 256, (40, 1003), dtype=np.uint8)
vector = torch.randn(1, 8 * 1003, generator=torch.Generator().manual_seed(0))
assert (selected(rows, vector) - multiplied(rows, 8 * 1003, vector)).abs().max() <= 3e-6 * vector.norm()
print(PICKED if PICKS else "planes")
"""


@pytest.mark.parametrize(
    ("target", "kernel"),
    [({"NUMBA_CPU_NAME": "generic"}, "planes")] + [({"NUMBA_CPU_FEATURES": "+avx,+avx2"}, "8")] * PICKS,
)
def test_products_are_compiled_for_what_numba_is_told(target: dict[str, str], kernel: str) -> None:
    """Users of clusters of several kinds of processors may have it compile for what all of them have."""
    command = [sys.executable, "-c", PRODUCTS]
    found = subprocess.run(command, env={**os.environ, **target}, capture_output=True, text=True, check=False)
    assert (found.stdout.strip(), found.stderr) == (kernel, "")


def test_a_replaced_mask_leaves_nothing_behind() -> None:
    masks = np.random.default_rng(0).random((4, 56)) < 0.5
    bank, other = MaskBank(LAYERS), MaskBank(LAYERS)
    for mask in masks[:3]:
        bank.add(codec.pack(mask))
    bank.replace(1, codec.pack(masks[3]))
    for number in (0, 3, 2):
        other.add(codec.pack(masks[number]))
    assert np.array_equal(bank.rows, other.rows)
    assert np.array_equal(bank.counts, other.counts)
