"""Numbers that describe a continual learner, from counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

AccuracyMatrix = Mapping[int, Sequence[float]]
"""Accuracies in [0, 1] of tasks 0..n-1 after n tasks learned, for each n that was evaluated."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval [low, high]."""

    value: float
    low: float
    high: float


def average_accuracy(accuracies: Sequence[float]) -> float:
    """Mean over tasks: each task counts alike."""
    return math.fsum(accuracies) / len(accuracies)


def forgetting(matrix: AccuracyMatrix, num_learned: int) -> float:
    """Mean drop of a task from its best earlier accuracy to that after `num_learned` tasks.

    Over the tasks that an earlier evaluation has seen (Chaudhry et al. 2018, equation 3, at the points
    that were evaluated); 0 when there is none. Negative where tasks improved.
    """
    earlier = [n for n in matrix if n < num_learned]
    drops = [
        max(matrix[n][task] for n in earlier if n > task) - matrix[num_learned][task]
        for task in range(max(earlier, default=0))
    ]
    return math.fsum(drops) / len(drops) if drops else 0.0


def wilson(successes: int, trials: int) -> Interval:
    """A proportion with Wilson's 95 % score interval."""
    z = 1.959963984540054
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(share, min(share, centre - half), max(share, centre + half))


_T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean over seeds with Student's 95 % interval; the interval of a single value is not a number."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    freedom = len(values) - 1
    quantile = _T_975[freedom - 1] if freedom <= len(_T_975) else 1.96
    half = quantile * math.sqrt(variance / len(values))
    return Interval(mean, mean - half, mean + half)
