"""Masks: exact top-k, codec, bank."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supsup_core.errors import CorruptError, InputError
from supsup_core.masks import MaskBank, Threshold, TopK, codec, draw_scores, num_kept, top_k_mask
from supsup_core.nets import Layer

LAYERS = (Layer("a", (7, 5), 5), Layer("b", (3, 7), 7))


def by_sorting(ranked: list[float], count: int) -> list[float]:
    """The definition: the largest `count`, ties to the lowest index."""
    kept = sorted(range(len(ranked)), key=lambda i: (-ranked[i], i))[:count]
    return [1.0 if i in kept else 0.0 for i in range(len(ranked))]


@given(st.lists(st.sampled_from([-1.5, -1.0, 0.0, 0.25, 0.5, 2.0]), min_size=1, max_size=60), st.data())
def test_top_k_is_exact_with_ties_to_the_lowest_index(values: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(values)))
    mask = top_k_mask(torch.tensor(values), count)
    assert mask.tolist() == by_sorting(values, count)


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


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_codec_round_trip(mask: list[bool]) -> None:
    bits = codec.pack(np.array(mask))
    assert len(bits) == codec.num_packed_bytes(len(mask))
    found, size = codec.decode(codec.encode(bits, len(mask)))
    assert size == len(mask)
    assert codec.unpack(found, size).tolist() == [int(kept) for kept in mask]


def test_every_flipped_byte_of_a_blob_is_found() -> None:
    blob = codec.encode(codec.pack(np.arange(77) % 3 == 0), 77)
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


def test_products_are_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = np.random.default_rng(0).random((9, 56)) < 0.5
    bank = MaskBank(LAYERS)
    for mask in masks:
        bank.add(codec.pack(mask))
    vectors = torch.randn(2, 56, generator=torch.Generator().manual_seed(0))
    whole = bank.products(vectors)
    monkeypatch.setattr("supsup_core.masks.products._BLOCK", 3)
    torch.testing.assert_close(bank.products(vectors), whole)
    monkeypatch.setattr("supsup_core.masks.products._FEW", 0)
    torch.testing.assert_close(bank.products(vectors), whole)
    monkeypatch.setattr("supsup_core.masks.products._CHUNK_BYTES", 2 * 4 * 56)
    torch.testing.assert_close(bank.products(vectors), whole)


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
