"""Random numbers: they depend only on (seed, purpose, task), are independent, and are the same in every version."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supsup_core import seeding


def test_different_purposes_tasks_and_seeds_give_different_random_streams() -> None:
    children = {
        seeding.child_seed(seed, purpose, task) for seed in range(20) for purpose in "abc" for task in range(200)
    }
    assert len(children) == 20 * 3 * 200


def test_tasks_of_neighbouring_seeds_do_not_coincide() -> None:
    """With task seeds such as task + seed, task i + 1 of seed 0 would equal task i of seed 1."""
    orders = {
        seeding.permutation(seeding.child_seed(seed, "permutation", task), 784).tobytes()
        for seed in range(3)
        for task in range(50)
    }
    assert len(orders) == 150


def test_draws_are_the_same_on_every_machine() -> None:
    """Golden values. A change of these values changes every result, and needs a new RECIPE_VERSION."""
    child = seeding.child_seed(0, "golden", 7)
    assert child == 0xEECB8416B69FB045F620F8D077180E01
    drawn = [seeding.uniform(child, (3, 5), 0.5), seeding.signs(child, (70,)), seeding.permutation(child, 50)]
    digests = [hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16] for values in drawn]
    assert digests == ["5cfebb1562c65a15", "21a9b586f9d1cda5", "9a6c3fd433a83722"]


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 70))
def test_batches_contain_every_image_once_before_any_repeats(num_images: int, num_batches: int, size: int) -> None:
    batches = seeding.batches(5, num_images, num_batches, size)
    assert batches.shape == (num_batches, size)
    flat = batches.reshape(-1)
    for start in range(0, len(flat), num_images):
        epoch = flat[start : start + num_images]
        assert len(set(epoch.tolist())) == len(epoch)
    assert flat.min() >= 0
    assert flat.max() < num_images


@pytest.mark.parametrize("bound", [1.0, 0.1])
def test_uniform_fills_its_interval(bound: float) -> None:
    values = seeding.uniform(1, (200, 101), bound)
    assert values.dtype == np.float32
    assert -bound <= values.min() < -0.99 * bound
    assert 0.99 * bound < values.max() < bound
    assert abs(values.mean()) < 0.02 * bound


def test_signs_are_balanced() -> None:
    values = seeding.signs(1, (300, 333))
    assert set(np.unique(values)) == {-1.0, 1.0}
    assert abs(values.mean()) < 0.02
