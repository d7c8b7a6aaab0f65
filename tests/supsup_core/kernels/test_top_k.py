"""Exact top-k by the compiled loop and by torch, compared with a sort."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from supsup_core.masks import top_k_mask


def by_sorting(ranked: list[float], count: int) -> list[float]:
    """Returns the top-k mask by definition: 1 for the largest `count` values; of equal values, the first is kept."""
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
    strided = torch.stack([scores, scores], 1)[:, 0]  # not contiguous, so torch computes it, as on a GPU
    assert top_k_mask(strided, count, by_size).tolist() == wanted
