"""95 % confidence intervals of proportions and of means over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_UPPER = 0.975
"""The probability below the upper end of a two-sided 95 % interval."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval [low, high]."""

    value: float
    low: float
    high: float


def _normal_quantile(probability: float) -> float:
    """The quantile of the standard normal distribution."""
    from scipy.special import ndtri  # the import takes 0.3 s, and only reports need it

    return float(ndtri(probability))


def _student_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t distribution with `degrees` degrees of freedom."""
    from scipy.special import stdtrit  # the import takes 0.3 s, and only reports need it

    return float(stdtrit(degrees, probability))


def wilson(successes: int, trials: int) -> Interval:
    """The proportion successes / trials with Wilson's 95 % score interval (Wilson 1927)."""
    z = _normal_quantile(_UPPER)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(share, min(share, centre - half), max(share, centre + half))


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean over seeds with Student's 95 % t interval. For a single value, both ends of the interval are NaN."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    degrees = len(values) - 1
    variance = math.fsum((v - mean) ** 2 for v in values) / degrees
    half = _student_quantile(_UPPER, degrees) * math.sqrt(variance / len(values))
    return Interval(mean, mean - half, mean + half)
