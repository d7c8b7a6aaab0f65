"""Numbers that describe a continual learner, from counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

AccuracyMatrix = Mapping[int, Mapping[int, float]]
"""Accuracies in [0, 1] of the tasks tested after n tasks learned, by task, for each n that was evaluated."""


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
    now = matrix[num_learned]
    earlier = [accuracies for n, accuracies in matrix.items() if n < num_learned]
    best = {task: max(past[task] for past in earlier if task in past) for past in earlier for task in past}
    drops = [accuracy - now[task] for task, accuracy in best.items() if task in now]
    return math.fsum(drops) / len(drops) if drops else 0.0


def wilson(successes: int, trials: int) -> Interval:
    """A proportion with Wilson's 95 % score interval."""
    z = 1.959963984540054
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(share, min(share, centre - half), max(share, centre + half))


class AllocationTally:
    """The books of NNs, kept with the task identities that the learner never sees.

    A mask belongs to the task it was allocated for. A *duplicate* is a mask allocated for a task that had a
    live one; a *wrong reuse* is a segment trained on the mask of another task.
    """

    def __init__(self) -> None:
        self._owners: dict[int, int] = {}
        self._segments: dict[int, dict[int, int]] = {}
        self.num_segments = 0
        self.duplicates = 0
        self.wrong_reuses = 0
        self.skipped = 0

    def add(self, task: int, mask: int | None, freed: int | None) -> None:
        """A segment of `task` was trained on `mask` (None: on nothing), for which `freed` was given up."""
        self.num_segments += 1
        if freed is not None:
            del self._owners[freed], self._segments[freed]
        if mask is None:
            self.skipped += 1
            return
        if mask not in self._owners:
            self.duplicates += task in self._owners.values()
            self._owners[mask] = task
        self.wrong_reuses += self._owners[mask] != task
        counts = self._segments.setdefault(mask, {})
        counts[task] = counts.get(task, 0) + 1

    @property
    def owners(self) -> Mapping[int, int]:
        """Live masks to the tasks they were allocated for."""
        return self._owners

    def purity(self) -> float:
        """Share of the segments in live masks that are of their mask's most frequent task; 1 for no masks."""
        total = sum(sum(counts.values()) for counts in self._segments.values())
        return sum(max(counts.values()) for counts in self._segments.values()) / total if total else 1.0

    def metrics(self) -> dict[str, float]:
        """The books as metrics; `untrained_share` is the share of segments that no mask was trained on."""
        return {
            "masks": float(len(self._owners)),
            "duplicates": float(self.duplicates),
            "wrong_reuses": float(self.wrong_reuses),
            "purity": self.purity(),
            "segments_not_trained": float(self.skipped),
            "untrained_share": self.skipped / self.num_segments if self.num_segments else 0.0,
        }


_T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


_Z_975 = 1.959964


def _t_975(freedom: int) -> float:
    """Student's 97.5 % quantile: from the table, or to four digits by its expansion about the normal one's."""
    if freedom <= len(_T_975):
        return _T_975[freedom - 1]
    z = _Z_975
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean over seeds with Student's 95 % interval; the interval of a single value is not a number."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    freedom = len(values) - 1
    half = _t_975(freedom) * math.sqrt(variance / len(values))
    return Interval(mean, mean - half, mean + half)
