"""Known data or a new task? The test of NNs, from the slopes of the masks alone (paper, section 3.4).

A test looks at the steepness -d objective / d alpha of each mask at equal alpha, first those of the k masks
learned so far, then those of untrained masks that it asked to have in the superposition. It answers whether
the steepest learned mask knows the data; if not, a mask is to be allocated.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, final

import numpy as np

from supsup_core.errors import InputError
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.registry import ChecksFields, Registry

if TYPE_CHECKING:
    import numpy.typing as npt

Slopes: TypeAlias = "npt.NDArray[np.float64]"


@dataclass(frozen=True)
class Verdict:
    """What a test says: the data is known if the statistic is above its threshold (and a learned mask won)."""

    known: bool
    statistic: float
    threshold: float


@dataclass(frozen=True, kw_only=True)
class AllocationTest(ABC):
    """Decides whether a segment's data is known. Subclasses are final; their fields are their config.

    The first `images_per_decision` images of a segment decide, through the slopes of `objective`.
    """

    objective: str = "entropy"
    images_per_decision: int = 128

    def __post_init__(self) -> None:
        OBJECTIVES.under("objective", self.objective)
        if self.images_per_decision < 1:
            raise InputError(f"images_per_decision: must be at least 1, not {self.images_per_decision}")
        if isinstance(self, ChecksFields):
            self.check_fields()

    @abstractmethod
    def num_untrained(self, num_masks: int) -> int:
        """How many untrained masks stand in the superposition beside `num_masks` >= 1 learned ones."""

    @abstractmethod
    def judge(self, slopes: Slopes, num_masks: int, budget: int) -> Verdict:
        """The verdict on slopes (num_masks + untrained,); `budget`: the most masks the run may have."""


ALLOCATION_TESTS: Registry[type[AllocationTest]] = Registry("allocation test")


@final
@ALLOCATION_TESTS.register("ratio")
@dataclass(frozen=True, kw_only=True)
class Ratio(AllocationTest, ChecksFields):
    """The paper's test: known when N * max(softmax(slopes)) >= 1 + epsilon, N masks in superposition.

    N is at least 5, by untrained masks; if one of those wins, the data is new.
    """

    epsilon: float = 0.125

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
"""The outlier test has at least so many masks in superposition: enough to know the spread of their slopes."""

_MOST_OUTLIERS = 32


@final
@ALLOCATION_TESTS.register("outlier")
@dataclass(frozen=True, kw_only=True)
class Outlier(AllocationTest, ChecksFields):
    """Known when the steepest mask is an outlier among its peers (see `standing_out`).

    `false_alarm_rate`: the chance, over a whole run, that new data is taken for known, which would overwrite
    what was learned. It is shared out evenly over as many new tasks as the budget has masks. A single
    learned mask has no peers: then the ratio test decides.
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
        found = standing_out(slopes, num_masks, self.false_alarm_rate / budget)
        return Verdict(bool(found.masks), found.statistic, found.threshold)


@dataclass(frozen=True)
class StandingOut:
    """The learned masks that are outliers, steepest first, with the statistic nearest to or furthest above its
    threshold."""

    masks: list[int]
    statistic: float
    threshold: float


def standing_out(slopes: Slopes, num_masks: int, rate: float) -> StandingOut:
    """Learned masks too steep to be one of the rest: Rosner's generalised test, one-sided, in leave-one-out form.

    The i-th steepest mask is compared with those less steep, m of them: t = (slope - their mean) /
    (s * sqrt(1 + 1/m)), against Student's t at level rate / (m + 1). All masks down to the last that exceeds
    its threshold stand out, so that a second mask for the same data (a duplicate, a similar task) cannot
    hide the first; at most a quarter of the masks, and no more than 32, are looked at.

    Training shifts the slopes of all learned masks against untrained ones, on any data. So means are taken
    over learned masks only, and untrained ones add to the spread s (pooled within the two groups), which a
    few learned masks could not tell. Needs num_masks >= 2 and three slopes, else nothing stands out.
    """
    from scipy.special import stdtrit  # takes 0.3 s to load, which a plan need not wait for

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
    return StandingOut([int(mask) for mask in order[:last]], best[1], best[2])
