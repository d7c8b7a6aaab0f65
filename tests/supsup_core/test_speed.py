"""Kernels are faster than plain implementations with torch.

The required ratios are far below those that `make bench` measures, so that the tests pass on a busy machine.
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


def test_products_with_packed_masks_are_faster_than_with_float_masks() -> None:
    found = scores.measure(200)
    assert found["ratio to floats"] > 1.5
    assert found["error"] < 1e-5


def test_exact_top_k_is_faster_than_a_sort() -> None:
    assert top_k.measure(20)["ratio"] > 5


def test_an_optimiser_step_is_faster_than_autograd_with_torchs_optimiser() -> None:
    found = training_step.measure(5)
    assert found["ratio to plain"] > 1.0
    assert found["share of the floor"] > 0.3
