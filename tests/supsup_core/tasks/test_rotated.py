"""Rotated tasks."""

import math

import pytest
import torch

from supsup_core.datasets import Dataset
from supsup_core.errors import InputError
from supsup_core.tasks import BENCHMARKS
from supsup_core.tasks.rotated import rotation


@pytest.mark.parametrize("quarters", [0, 1, 2, 3, 4])
def test_a_rotation_by_90_degrees_is_exact_and_counterclockwise(digits: Dataset, quarters: int) -> None:
    benchmark = BENCHMARKS["rotated"](base="digits", degrees=90.0, num_tasks=4)
    x, y = benchmark.task(quarters, digits, 0).test_batch(torch.arange(5))
    upright = digits.normalise(digits.test.pixels[:5])
    assert torch.equal(x, torch.rot90(upright, quarters, (1, 2)))
    assert torch.equal(y, digits.test.labels[:5])


def test_a_small_rotation_uses_the_nearest_pixel() -> None:
    source, outside = rotation((28, 28), 10.0)
    inside = ~outside
    assert 0 < int(outside.sum()) < 200
    y, x = torch.arange(784) // 28, torch.arange(784) % 28
    from_y, from_x = source // 28, source % 28
    turned = math.radians(10)
    wanted_x = math.cos(turned) * (x - 13.5) - math.sin(turned) * (y - 13.5) + 13.5
    wanted_y = math.sin(turned) * (x - 13.5) + math.cos(turned) * (y - 13.5) + 13.5
    assert float((from_x - wanted_x)[inside].abs().max()) <= 0.5001
    assert float((from_y - wanted_y)[inside].abs().max()) <= 0.5001


def test_rotations_do_not_depend_on_the_seed(digits: Dataset) -> None:
    benchmark = BENCHMARKS["rotated"](base="digits")
    first, second = (benchmark.task(3, digits, seed).train_batch(torch.arange(4))[0] for seed in (0, 1))
    assert torch.equal(first, second)
    with pytest.raises(InputError, match="every task the same"):
        BENCHMARKS["rotated"](base="digits", degrees=0.0, num_tasks=1)
    for num_tasks, degrees, most in ((37, 10.0, 36), (4, 120.0, 3), (2, 360.0, 1), (40, -10.0, 36)):
        with pytest.raises(InputError, match=f"task {most} has the same rotation .*; set at most {most}"):
            BENCHMARKS["rotated"](base="digits", degrees=degrees, num_tasks=num_tasks)
    BENCHMARKS["rotated"](base="digits", degrees=0.1, num_tasks=3600)
