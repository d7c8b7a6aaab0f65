"""Products of packed masks are equal in chunks and by matrix products, as used on other devices."""

import numpy as np
import pytest
import torch

from supsup_core.masks import MaskBank, codec
from supsup_core.masks.products import multiply_unpacked
from supsup_core.masks.selection import products_by_planes
from supsup_core.nets import Layer

LAYERS = (Layer("a", (7, 5), 5), Layer("b", (3, 7), 7))


def test_products_are_the_same_in_chunks_and_by_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = np.random.default_rng(0).random((9, 56)) < 0.5
    bank = MaskBank(LAYERS)
    for mask in masks:
        bank.add(codec.pack(mask))
    vectors = torch.randn(2, 56, generator=torch.Generator().manual_seed(0))
    whole = bank.products(vectors)
    monkeypatch.setattr("supsup_core.masks.selection._BLOCK", 3)
    torch.testing.assert_close(products_by_planes(bank.rows, vectors), whole)
    torch.testing.assert_close(multiply_unpacked(bank.rows, bank.size, vectors), whole)
    monkeypatch.setattr("supsup_core.masks.products._CHUNK_BYTES", 2 * 32 * 7)
    torch.testing.assert_close(multiply_unpacked(bank.rows, bank.size, vectors), whole)
