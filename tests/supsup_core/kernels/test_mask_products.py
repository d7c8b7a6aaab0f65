"""Every kernel for products of packed masks, compared with matrix products in float64."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supsup_core.kernels.mask_products import HAS_PERMUTATION, LANES
from supsup_core.masks import codec
from supsup_core.masks.products import inner_products
from supsup_core.masks.selection import products_by_lookup, products_by_permutation, products_by_planes

KERNELS = [products_by_planes, products_by_lookup] + ([products_by_permutation] if HAS_PERMUTATION else [])


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(st.integers(1, 20), st.integers(120, 140)),
    st.integers(1, 40),
    st.one_of(st.integers(1, 1300), st.integers(4000, 8700)),
    st.integers(0, 2**31),
)
def test_every_kernel_gives_the_products_of_packed_masks(num_masks: int, count: int, size: int, seed: int) -> None:
    """Sizes include multiples of the kernels' block sizes and other sizes."""
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
        assert products.shape == wanted.shape  # summation order differs between kernels, so the error is
        assert (
            (products - wanted).abs() <= 1.5e-6 * lengths[: len(wanted)]
        ).all()  # relative to the norm of the vector, not to the product
