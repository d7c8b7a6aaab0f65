"""Decides which mask is trained on the next segment in scenario NNs (paper, section 3.4), within a budget of masks.

In NNs the task identity is given neither in training nor at inference. `Allocator` makes all decisions, and numbers
masks in the order of their allocation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from supsup_core.field_limits import MOST_TASKS, check_limits, limited
from supsup_core.masks import MaskBank, codec
from supsup_core.masks.products import inner_products
from supsup_core.nets.base import Layer
from supsup_core.nns.allocation_tests import AllocationTest, Slopes, Verdict, find_outliers

NNS_VERSION = 1
"""Part of the identity of every NNs run. Raise this number whenever a change of the code alters a decision."""

Outcome = Literal["train", "allocate", "reuse", "reclaim", "skip"]

_REDUNDANT_RATE = 0.01
"""The false-alarm rate, over a whole run, of the search for duplicate masks. The search uses the outlier test, even if
the run uses another allocation test."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The largest number of masks in use, and the policy for new data once that many masks are in use.

    `num_masks`: the largest number; None means one mask for each task of the stream. `on_exhausted`: the policy. `skip`
    trains no mask on the segment, as in the authors' code, and counts the segment as not trained. `reuse` trains the
    steepest mask on the segment. `reclaim` deletes a duplicate mask and allocates a new mask in its place. Of two masks
    that were outliers in the same decisions, the one trained on fewer segments counts as a duplicate. If there is no
    duplicate, or if a mask is an outlier in the current decision, `reclaim` acts as `reuse`.
    """

    num_masks: int | None = limited(None, least=1, most=MOST_TASKS)
    on_exhausted: Literal["skip", "reuse", "reclaim"] = "reclaim"

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True)
class Decision:
    """The decision for one segment.

    `num_masks` (k): the number of learned masks in the superposition. `statistic`, `threshold`: the numbers that the
    allocation test compared. `best`, `second`: the numbers of the steepest and the second steepest learned mask.
    `outcome`: `train` if the data is known, `allocate` if a new mask fits into the budget, otherwise `reclaim`, `reuse`
    or `skip`. `mask`: the number of the mask to train on the segment, or None. `freed`: the number of the mask that was
    deleted to make room, or None. `standing_out`: the numbers of all masks whose slopes are outliers, or () if there
    are fewer than two.
    """

    num_masks: int
    statistic: float
    threshold: float
    best: int | None
    second: int | None
    outcome: Outcome
    mask: int | None
    freed: int | None = None
    standing_out: tuple[int, ...] = ()

    @property
    def margin(self) -> float:
        """The statistic minus the threshold. The margin of known data is at least 0."""
        return self.statistic - self.threshold


@dataclass
class Allocator:
    """Makes the decisions of scenario NNs, and stores all masks in use as packed bits in a MaskBank.

    All decisions of a round use the masks as they were before the round. The caller then trains each chosen mask, and
    passes its bits to `trained()`. At the end of the round, the caller calls `end_round()`, which copies these masks
    into the bank.

    `policy`: `Budget.on_exhausted`. `capacity`: the largest number of masks that may be in use. `draw(number)` returns
    the packed bits of mask `number` before its training, which also serve as an untrained mask. `live`: the numbers of
    the masks in use, in the order of the bank. `num_allocated`: the number of masks allocated so far, including deleted
    ones. The next allocated mask gets the number `num_allocated`. `trained_segments`: for each mask, the number of
    segments that it was trained on. `together`: for each pair of masks in use, the number of decisions in which both
    were outliers.
    """

    layers: Sequence[Layer]
    test: AllocationTest
    policy: Literal["skip", "reuse", "reclaim"]
    capacity: int
    draw: Callable[[int], codec.Bits]
    live: list[int] = field(default_factory=list)
    num_allocated: int = 0
    trained_segments: Counter[int] = field(default_factory=Counter)
    together: Counter[tuple[int, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._bank = MaskBank(self.layers)
        self._fresh: dict[int, codec.Bits] = {}
        self._retrained: dict[int, codec.Bits] = {}

    def replay(self, decisions: Sequence[Decision]) -> None:
        """Restore `live` and all counts from the `decisions` of all complete rounds. Call `fill` next."""
        for decision in decisions:
            self._record(decision)

    def fill(self, bits: Callable[[int], codec.Bits]) -> None:
        """Restore the bank. bits: a function that returns the packed bits of a mask in use, given its number."""
        for number in self.live:
            self._bank.add(bits(number))

    @property
    def rows(self) -> codec.Bits:
        """The masks in use as packed bits (k, ceil(n / 8)), in the order of `live`. Do not write to this view."""
        return self._bank.rows

    def untrained(self) -> list[codec.Bits]:
        """The packed bits of the untrained masks in the next superposition.

        The allocator allocates these masks next, in this order.
        """
        count = self.test.num_untrained(len(self.live)) if self.live else 0
        wanted = range(self.num_allocated, self.num_allocated + count)
        self._fresh = {n: self._fresh[n] if n in self._fresh else self.draw(n) for n in wanted}
        return list(self._fresh.values())

    def superposition(self) -> Tensor | None:
        """The mean of all masks in use and untrained masks, as flat float32 (n,); None if no mask is in use."""
        if not self.live:
            return None
        untrained = self.untrained()
        counts = self._bank.counts.copy()
        for bits in untrained:
            counts += codec.unpack(bits, self._bank.size)
        return torch.from_numpy(counts.astype(np.float32)) / (len(self.live) + len(untrained))

    def slopes(self, vectors: Tensor) -> Slopes:
        """The slope of each mask for D segments, (D, k + untrained). The k masks in use come first.

        vectors: (D, n), the elementwise product of -d objective / dW and W for each segment.
        """
        untrained = self.untrained()
        found = [inner_products(self._bank.rows, self._bank.size, vectors)]
        if untrained:
            found.append(inner_products(np.stack(untrained), self._bank.size, vectors))
        return torch.cat(found, 1).double().numpy()

    def decide(self, slopes: Slopes) -> list[Decision]:
        """Decides for the D segments of one round, in order. slopes: (D, k + untrained), or (D, 0) if k is 0.

        A mask allocated earlier in the round counts against the budget, but cannot be chosen before the next round.
        """
        start = list(self.live)
        steepest = [start[int(row[: len(start)].argmax())] for row in slopes] if start else []
        chosen: set[int] = set()
        decisions = []
        for index, row in enumerate(slopes):
            decision = self._decide(row, start, chosen.union(steepest[index + 1 :]))
            self._record(decision)
            if decision.mask is not None:
                chosen.add(decision.mask)
            decisions.append(decision)
        return decisions

    def _decide(self, slopes: Slopes, start: Sequence[int], chosen: set[int]) -> Decision:
        k = len(start)
        if k == 0:
            return Decision(0, 0.0, 0.0, None, None, "allocate", self.num_allocated)
        verdict = self.test.judge(slopes, k, self.capacity)
        ranked = [start[place] for place in np.argsort(-slopes[:k], kind="stable")]
        found = find_outliers(slopes, k, _REDUNDANT_RATE / self.capacity).masks
        outliers = tuple(start[place] for place in found)
        live = set(self.live)
        usable = [number for number in ranked if number in live]
        outcome, freed = self._outcome(verdict, outliers, bool(usable), chosen)
        if outcome in ("allocate", "reclaim"):
            mask: int | None = self.num_allocated
        else:
            mask = usable[0] if outcome != "skip" else None
        return Decision(
            k, verdict.statistic, verdict.threshold, ranked[0], ranked[1] if k > 1 else None, outcome, mask, freed,
            outliers if len(outliers) > 1 else (),
        )  # fmt: skip

    def _outcome(
        self, verdict: Verdict, outliers: Sequence[int], usable: bool, chosen: set[int]
    ) -> tuple[Outcome, int | None]:
        """The outcome, and the number of the mask to delete, or None.

        usable: whether a mask from the start of the round is still in use. chosen: masks that the round has chosen or
        may still choose.
        """
        if verdict.known and usable:
            return "train", None
        if len(self.live) < self.capacity:
            return "allocate", None
        if self.policy == "skip" or not usable:
            return "skip", None
        freed = self._redundant(chosen) if self.policy == "reclaim" and not outliers else None
        return ("reuse", None) if freed is None else ("reclaim", freed)

    def _redundant(self, chosen: set[int]) -> int | None:
        """The duplicate to delete, or None if there is none.

        The pairs in `together` are tried in descending order of their counts. The duplicate is the less trained mask of
        the first pair whose less trained mask is not in `chosen`.
        """
        for (old, young), _ in sorted(self.together.items(), key=lambda item: (-item[1], item[0])):
            victim = old if self.trained_segments[old] < self.trained_segments[young] else young
            if victim not in chosen:
                return victim
        return None

    def _record(self, decision: Decision) -> None:
        """Update `live`, `num_allocated`, `trained_segments` and `together` according to a decision."""
        if decision.standing_out:
            for pair in combinations(sorted(set(decision.standing_out) & set(self.live)), 2):
                self.together[pair] += 1
        if decision.outcome == "reclaim":
            assert decision.mask is not None
            assert decision.freed is not None
            self.live[self.live.index(decision.freed)] = decision.mask
            self.together = Counter({p: n for p, n in self.together.items() if decision.freed not in p})
        elif decision.outcome == "allocate":
            assert decision.mask is not None
            self.live.append(decision.mask)
        if decision.mask is not None:
            self.num_allocated = max(self.num_allocated, decision.mask + 1)
            self.trained_segments[decision.mask] += 1

    def trained(self, number: int, bits: codec.Bits) -> None:
        """Accept the new bits of mask `number`, which the caller has trained.

        `end_round` copies the bits into the bank.
        """
        self._retrained[number] = bits

    def end_round(self) -> None:
        """Store in the bank all masks that `trained` has received in this round."""
        for number in sorted(self._retrained):
            place = self.live.index(number)
            if place < self._bank.num_masks:
                self._bank.replace(place, self._retrained[number])
            else:
                self._bank.add(self._retrained[number])
        self._retrained.clear()
