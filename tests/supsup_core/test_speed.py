"""Kernels stay faster than the plain way by torch.

The bounds are far below the ratios of `make bench`, so that the tests pass on a busy machine.
"""

from collections.abc import Iterator

import pytest
import torch

from bench import scores, top_k, training_step


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_scores_of_packed_masks_beat_a_product_with_floats() -> None:
    found = scores.measure(200)
    assert found["ratio to floats"] > 1.5
    assert found["error"] < 1e-5


def test_exact_top_k_beats_a_sort() -> None:
    assert top_k.measure(20)["ratio"] > 5


def test_a_step_beats_autograd_with_torchs_optimiser() -> None:
    found = training_step.measure(5)
    assert found["ratio to plain"] > 1.0
    assert found["share of the floor"] > 0.3
