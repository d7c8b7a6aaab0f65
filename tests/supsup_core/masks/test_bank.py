"""The bank of packed masks, compared with dense masks."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supsup_core.masks import MaskBank, codec
from supsup_core.nets import Layer

LAYERS = (Layer("a", (7, 5), 5), Layer("b", (3, 7), 7))


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


def test_a_bank_after_a_replacement_equals_a_newly_built_bank() -> None:
    masks = np.random.default_rng(0).random((4, 56)) < 0.5
    bank, other = MaskBank(LAYERS), MaskBank(LAYERS)
    for mask in masks[:3]:
        bank.add(codec.pack(mask))
    bank.replace(1, codec.pack(masks[3]))
    for number in (0, 3, 2):
        other.add(codec.pack(masks[number]))
    assert np.array_equal(bank.rows, other.rows)
    assert np.array_equal(bank.counts, other.counts)
