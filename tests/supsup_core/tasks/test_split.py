"""Split tasks."""

import pytest
import torch

from supsup_core.datasets import Dataset
from supsup_core.errors import InputError
from supsup_core.tasks import BENCHMARKS


@pytest.mark.parametrize("order", ["drawn", "given"])
@pytest.mark.parametrize("labels", ["own", "base"])
def test_a_split_gives_every_image_to_one_task(digits: Dataset, order: str, labels: str) -> None:
    benchmark = BENCHMARKS["split"](base="digits", order=order, labels=labels)
    tasks = [benchmark.task(index, digits, 3) for index in range(5)]
    assert sum(task.num_train for task in tasks) == len(digits.train.labels)
    assert sum(task.num_test for task in tasks) == len(digits.test.labels)
    met: list[int] = []
    for task in tasks:
        x, y = task.all_test()
        own = sorted(set(y.tolist()))
        assert own == [0, 1] if labels == "own" else len(own) == 2
        for label in own:
            found = x[y == label].flatten(1)
            rows = [
                c for c in range(10)
                if torch.equal(digits.normalise(digits.test.pixels[digits.test.labels == c]).flatten(1), found)
            ]  # fmt: skip
            assert len(rows) == 1
            assert labels == "own" or rows == [label]
            met += rows
    assert sorted(met) == list(range(10))
    assert order == "drawn" or met == list(range(10))


def test_splits_are_drawn_from_the_seed(digits: Dataset) -> None:
    benchmark = BENCHMARKS["split"](base="digits")
    sizes = {tuple(benchmark.task(index, digits, seed).num_test for index in range(5)) for seed in range(5)}
    assert len(sizes) == 5


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_tasks": 6}, "enough for 5 tasks; lower num_tasks or labels_per_task"),
        ({"labels_per_task": 0}, "labels_per_task: must be at least 1"),
    ],
)
def test_invalid_splits_are_refused(fields: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        BENCHMARKS["split"](base="digits", **fields)
