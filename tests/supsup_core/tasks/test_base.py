"""The contract of benchmarks, tested on every registered benchmark."""

import pytest
import torch

from supsup_core.datasets import Dataset
from supsup_core.errors import InputError
from supsup_core.tasks import BENCHMARKS, Benchmark
from tests.supsup_core.tasks.images import seen


def test_tasks_are_pure_functions_and_have_the_stated_shape(benchmark: Benchmark, digits: Dataset) -> None:
    indices = torch.tensor([5, 0, 7])
    task, again = benchmark.task(1, digits, 9), benchmark.task(1, digits, 9)
    for batch in ("train_batch", "test_batch"):
        x, y = getattr(task, batch)(indices)
        assert x.shape == (3, *benchmark.input_shape)
        assert x.dtype == torch.float32
        assert int(y.max()) < benchmark.num_labels
        assert torch.equal(x, getattr(again, batch)(indices)[0])
    assert len(task.all_test()[1]) == task.num_test


def test_tasks_of_a_benchmark_differ_from_each_other(benchmark: Benchmark, digits: Dataset) -> None:
    assert len(seen(benchmark, digits, 1)) == 4


def test_the_number_of_tasks_is_not_part_of_a_tasks_identity(benchmark: Benchmark) -> None:
    longer = type(benchmark)(base="digits", num_tasks=5)
    assert longer.identity() == benchmark.identity()


def test_a_benchmark_without_tasks_is_refused() -> None:
    with pytest.raises(InputError, match="num_tasks: must be at least 1"):
        BENCHMARKS["permuted"](num_tasks=0)
