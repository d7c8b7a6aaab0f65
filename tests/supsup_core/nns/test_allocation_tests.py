"""Allocation tests: formulas, false alarm rates, and several outliers at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from supsup_core.errors import InputError
from supsup_core.nns.allocation_tests import ALLOCATION_TESTS, find_outliers

NAMES = ALLOCATION_TESTS.names()


def slopes(k: int, untrained: int, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    """Returns random slopes without an outlier. k: learned masks; untrained: untrained masks; shift: the difference
    between the means of both groups, which training causes."""
    drawn = np.random.default_rng(seed)
    return np.concatenate(
        [0.2 + shift + 0.01 * drawn.standard_normal(k), 0.2 + 0.01 * drawn.standard_normal(untrained)]
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [1, 2, 5, 20, 100, 1000])
def test_data_is_known_if_one_mask_has_a_far_larger_slope_than_the_others(name: str, k: int) -> None:
    test = ALLOCATION_TESTS[name]()
    found = slopes(k, test.num_untrained(k))
    assert not test.judge(found, k, 2500).known
    found[k // 2] += 0.5
    verdict = test.judge(found, k, 2500)
    assert verdict.known
    assert verdict.statistic >= verdict.threshold


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_data_is_new_if_an_untrained_mask_has_the_largest_slope(name: str, k: int) -> None:
    test = ALLOCATION_TESTS[name]()
    found = slopes(k, test.num_untrained(k))
    assert len(found) > k
    found[-1] += 3.0
    assert not test.judge(found, k, 2500).known


@given(st.floats(0.01, 1), st.integers(1, 40), st.integers(0, 1000))
def test_the_ratio_test_equals_the_papers_formula(epsilon: float, k: int, seed: int) -> None:
    test = ALLOCATION_TESTS["ratio"](epsilon=epsilon)
    found = 10 * slopes(k, test.num_untrained(k), seed)
    v = np.exp(found) / np.exp(found).sum()
    assert len(found) == max(5, k)
    verdict = test.judge(found, k, 10)
    assert verdict.statistic == pytest.approx(len(found) * v.max())
    assert verdict.known == (v.argmax() < k and len(found) * v.max() >= 1 + epsilon)


@pytest.mark.parametrize("k", [2, 4, 8, 16, 40, 200])
def test_the_false_alarm_rate_is_not_exceeded(k: int) -> None:
    """4000 decisions on slopes without an outlier, at a false alarm rate of 5 %, with a shift as training causes it."""
    alarms = 0
    for seed in range(4000):
        found = slopes(k, max(0, 32 - k), seed, shift=0.05)
        alarms += bool(find_outliers(found, k, 0.05).masks)
    assert alarms <= stats.binom.ppf(0.999, 4000, 0.05 if k > 8 else 0.06)
    assert alarms >= 40  # too few alarms would also mean a wrong calibration


def test_the_threshold_depends_only_on_k_and_the_rate() -> None:
    """With one outlier among k slopes, the test is Grubbs' test: Student's t at rate / k, in leave-one-out form."""
    k = 50
    found = slopes(k, 0)
    found[7] += 0.2
    outcome = find_outliers(found, k, 1e-4)
    rest = np.delete(found, 7)
    t = (found[7] - rest.mean()) / (rest.std(ddof=1) * np.sqrt(1 + 1 / (k - 1)))
    assert outcome.masks == [7]
    assert outcome.statistic == pytest.approx(t)
    assert outcome.threshold == pytest.approx(stats.t.isf(1e-4 / k, k - 2))
    rarer = find_outliers(found, k, 1e-6)
    assert rarer.threshold > outcome.threshold


@pytest.mark.parametrize("ahead", [2, 4, 8])
def test_outliers_do_not_hide_each_other(ahead: int) -> None:
    """Duplicates and similar tasks cause several outliers. In Grubbs' test, the second outlier would hide the first."""
    k = 40
    found = slopes(k, 0)
    for place in range(ahead):
        found[3 * place] += 0.5 + 0.1 * place
    assert sorted(find_outliers(found, k, 1e-5).masks) == [3 * place for place in range(ahead)]
    assert find_outliers(found, k, 1e-5).masks[0] == 3 * (ahead - 1)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ratio", {"epsilon": 0.0}),
        ("outlier", {"false_alarm_rate": 0.0}),
        ("outlier", {"false_alarm_rate": 1.0}),
        ("ratio", {"images_per_decision": 0}),
        ("outlier", {"objective": "entropi"}),
    ],
)
def test_invalid_tests_are_refused(name: str, fields: dict[str, object]) -> None:
    with pytest.raises(InputError):
        ALLOCATION_TESTS[name](**fields)
