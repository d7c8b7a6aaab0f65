"""Confidence intervals, compared with those of SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from supsup_core.evaluation import intervals


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (7, 10), (10, 10), (1879, 2000)])
def test_the_wilson_interval_equals_scipys(successes: int, trials: int) -> None:
    found = intervals.wilson(successes, trials)
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert found.value == successes / trials
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)


@pytest.mark.parametrize("count", [2, 3, 5, 31, 32, 60])
def test_the_interval_of_a_mean_is_students_t_interval(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    found = intervals.mean_interval(values.tolist())
    low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-12), pytest.approx(high, rel=1e-12))


def test_one_seed_has_no_interval() -> None:
    assert math.isnan(intervals.mean_interval([0.5]).low)
