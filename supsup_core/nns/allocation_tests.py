"""Allocation tests of scenario NNs, which classify the data of a segment as known or new (paper, section 3.4).

A test decides from the slopes of masks, that is, from -d objective / d alpha at equal alpha, on the segment's images.
The slopes of the k learned masks come first. The slopes of untrained random masks follow, and the test chooses how many
(`num_untrained`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, final

import numpy as np

from supsup_core.errors import InputError
from supsup_core.field_limits import MOST_RATE, check_limits, limited
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.registry import ChecksFields, Registry

if TYPE_CHECKING:
    import numpy.typing as npt

Slopes: TypeAlias = "npt.NDArray[np.float64]"


@dataclass(frozen=True)
class Verdict:
    """The result of an allocation test.

    `known`: whether the data is known. `statistic`, `threshold`: the two numbers that the test compared.
    """

    known: bool
    statistic: float
    threshold: float


@dataclass(frozen=True, kw_only=True)
class AllocationTest(ABC):
    """Classifies a segment's data as known or new. Subclasses are final; their fields are the keys of their config.

    The slopes are computed for `objective` on the first `images_per_decision` images of the segment.
    """

    objective: str = "entropy"
    images_per_decision: int = limited(128, least=1)

    def __post_init__(self) -> None:
        OBJECTIVES.under("objective", self.objective)
        check_limits(self)
        if isinstance(self, ChecksFields):
            self.check_fields()

    @abstractmethod
    def num_untrained(self, num_masks: int) -> int:
        """The number of untrained masks that are added to a superposition of `num_masks` >= 1 learned masks."""

    @abstractmethod
    def judge(self, slopes: Slopes, num_masks: int, budget: int) -> Verdict:
        """Classifies the data of a segment from slopes (num_masks + num_untrained(num_masks),).

        budget: the largest number of masks that may be in use in the run.
        """


ALLOCATION_TESTS: Registry[type[AllocationTest]] = Registry("allocation test")


@final
@ALLOCATION_TESTS.register("ratio")
@dataclass(frozen=True, kw_only=True)
class Ratio(AllocationTest, ChecksFields):
    """The paper's test: data is known if N * max(softmax(slopes)) >= 1 + epsilon, for N masks in superposition.

    If fewer than five masks are learned, untrained masks are added until N is 5. If the steepest mask is untrained, the
    data is new.
    """

    epsilon: float = limited(0.125, most=MOST_RATE)

    def check_fields(self) -> None:
        if self.epsilon <= 0:
            raise InputError(f"epsilon: must be positive, not {self.epsilon}")

    def num_untrained(self, num_masks: int) -> int:
        return max(0, 5 - num_masks)

    def judge(self, slopes: Slopes, num_masks: int, budget: int) -> Verdict:
        best = int(slopes.argmax())
        statistic = len(slopes) / float(np.exp(slopes - slopes[best]).sum())
        threshold = 1 + self.epsilon
        return Verdict(best < num_masks and statistic >= threshold, statistic, threshold)


_SUPERPOSED = 32
"""The outlier test superposes at least this many masks, enough to estimate the spread of their slopes. If fewer masks
are learned, the test adds untrained masks."""

_MOST_OUTLIERS = 32
"""The largest number of masks that are tested as outliers."""


@final
@ALLOCATION_TESTS.register("outlier")
@dataclass(frozen=True, kw_only=True)
class Outlier(AllocationTest, ChecksFields):
    """Data is known if the slope of a learned mask is an outlier (see `find_outliers`).

    `false_alarm_rate`: the probability that the test calls new data known at least once in a whole run. Each such error
    would overwrite a learned mask. A single test uses this rate divided by the budget, since a run can have as many new
    tasks as masks. If only one mask is learned, its slope cannot be compared with those of other learned masks, so the
    ratio test decides.
    """

    false_alarm_rate: float = 0.01

    def check_fields(self) -> None:
        if not 0 < self.false_alarm_rate < 1:
            raise InputError(f"false_alarm_rate: must be in (0, 1), not {self.false_alarm_rate}")

    def num_untrained(self, num_masks: int) -> int:
        return Ratio().num_untrained(num_masks) if num_masks == 1 else max(0, _SUPERPOSED - num_masks)

    def judge(self, slopes: Slopes, num_masks: int, budget: int) -> Verdict:
        if num_masks == 1:
            return Ratio().judge(slopes, num_masks, budget)
        found = find_outliers(slopes, num_masks, self.false_alarm_rate / budget)
        return Verdict(bool(found.masks), found.statistic, found.threshold)


@dataclass(frozen=True)
class Outliers:
    """The learned masks that are outliers, steepest first.

    `statistic`, `threshold`: the numbers of one tested mask, the one with the largest difference statistic - threshold.
    """

    masks: list[int]
    statistic: float
    threshold: float


def find_outliers(slopes: Slopes, num_masks: int, rate: float) -> Outliers:
    """Finds the learned masks whose slopes are outliers, by Rosner's generalised ESD test.

    slopes: the slopes of the `num_masks` learned masks, then those of the untrained masks. rate: the probability of a
    false alarm in this call.

    The test is one-sided and has the leave-one-out form. The test goes through the learned masks, steepest first, and
    compares each mask with the m learned masks that are less steep. The statistic is t = (slope - mean) / (s * sqrt(1 +
    1/m)), where `mean` is the mean slope of the m masks. The threshold is the upper quantile of Student's t at level
    rate / (m + 1). The last mask whose statistic exceeds its threshold is an outlier, and so are all steeper masks. A
    second mask for the same data (a duplicate, or a similar task) therefore cannot hide the first mask. The test stops
    after a quarter of the learned masks (at least 1, at most 32).

    On any data, the slopes of learned masks differ systematically from those of untrained masks, so `mean` is over
    learned masks only. The standard deviation s is pooled within the two groups, because a few learned masks do not
    suffice to estimate s. There are no outliers if num_masks < 2, or if there are too few slopes to estimate s.
    """
    from scipy.special import stdtrit  # the import takes 0.3 s, and `supsup plan` does not need it

    learned = slopes[:num_masks]
    order = np.argsort(-learned, kind="stable")
    untrained = slopes[num_masks:]
    freedom = max(len(untrained) - 1, 0)
    squares = float(((untrained - untrained.mean()) ** 2).sum()) if freedom else 0.0
    best = (-math.inf, 0.0, math.inf)
    last = 0
    for rank in range(min(max(1, num_masks // 4), _MOST_OUTLIERS)):
        peers = learned[order[rank + 1 :]]
        degrees = len(peers) - 1 + freedom
        if len(peers) == 0 or degrees < 1:
            break
        mean = float(peers.mean())
        spread = math.sqrt((float(((peers - mean) ** 2).sum()) + squares) / degrees)
        gap = float(learned[order[rank]]) - mean
        statistic = gap / (spread * math.sqrt(1 + 1 / len(peers))) if spread > 0 else (math.inf if gap > 0 else 0.0)
        threshold = -float(stdtrit(degrees, rate / (len(peers) + 1)))
        if statistic - threshold > best[0]:
            best = (statistic - threshold, statistic, threshold)
        if statistic > threshold:
            last = rank + 1
    return Outliers([int(mask) for mask in order[:last]], best[1], best[2])
