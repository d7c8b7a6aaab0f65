"""Metrics against values worked out by hand or by SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from supsup_core.evaluation import metrics


def test_forgetting_is_the_drop_from_the_best_earlier_accuracy() -> None:
    matrix = {1: {0: 0.9}, 2: {0: 0.95, 1: 0.8}, 3: {0: 0.7, 1: 0.9, 2: 0.6}}
    assert metrics.forgetting(matrix, 1) == 0
    assert metrics.forgetting(matrix, 2) == pytest.approx(-0.05)
    assert metrics.forgetting(matrix, 3) == pytest.approx(((0.95 - 0.7) + (0.8 - 0.9)) / 2)


def test_forgetting_counts_every_task_that_was_tested_before_however_many_were_learned() -> None:
    """Streams that mix tasks test more of them than they have learned whole."""
    matrix = {2: {0: 0.5, 3: 0.8, 4: 0.9}, 5: {0: 0.5, 1: 0.1, 3: 0.4, 4: 0.6}}
    assert metrics.forgetting(matrix, 5) == pytest.approx((0 + 0.4 + 0.3) / 3)


def test_average_accuracy_counts_tasks_alike() -> None:
    assert metrics.average_accuracy([1.0, 0.5, 0.0]) == 0.5


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (7, 10), (10, 10), (1879, 2000)])
def test_wilson_is_scipys(successes: int, trials: int) -> None:
    found = metrics.wilson(successes, trials)
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert found.value == successes / trials
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)


@pytest.mark.parametrize("count", [2, 3, 5, 31, 32, 60])
def test_mean_interval_is_students(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    found = metrics.mean_interval(values.tolist())
    low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


def test_one_seed_has_no_interval() -> None:
    assert math.isnan(metrics.mean_interval([0.5]).low)
