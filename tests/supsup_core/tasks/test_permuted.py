"""Permuted tasks."""

import torch

from supsup_core.datasets import Dataset
from supsup_core.tasks import BENCHMARKS
from tests.supsup_core.tasks.images import seen


def test_permutations_of_different_seeds_never_coincide(digits: Dataset) -> None:
    assert len(seen(BENCHMARKS["permuted"](base="digits"), digits, 3)) == 12


def test_a_permutation_keeps_the_pixels_and_the_labels(digits: Dataset) -> None:
    first, second = (BENCHMARKS["permuted"](base="digits").task(i, digits, 0) for i in range(2))
    (x, y), (z, w) = first.all_test(), second.all_test()
    assert torch.equal(x.sort(1).values, z.sort(1).values)
    assert not torch.equal(x, z)
    assert torch.equal(y, w)
