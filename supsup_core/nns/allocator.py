"""Learning without any task identity: which mask trains next (paper, section 3.4), under a budget.

`Allocator` is the whole of the decision-making, free of any platform. It knows masks by number, in the
order they were allocated, and never sees a task.
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

from supsup_core.errors import InputError
from supsup_core.masks import MaskBank, codec
from supsup_core.masks.products import inner_products
from supsup_core.nets.base import Layer
from supsup_core.nns.allocation_tests import AllocationTest, Slopes, Verdict, standing_out

NNS_VERSION = 1
"""Part of the identity of every NNs run. A change that alters a decision must raise it."""

Outcome = Literal["train", "allocate", "reuse", "reclaim", "skip"]

_REDUNDANT_RATE = 0.01
"""The run-wide false-alarm rate at which masks count as answering for the same data, whatever the test."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many masks there may be, and what becomes of new data when all are taken.

    `num_masks`: None allows one for each task of the stream. `on_exhausted`: `skip` does not train on the
    data (as the authors' code, but counted); `reuse` trains the steepest mask on it; `reclaim` frees the less
    trained of two masks that keep answering for the same data, and acts as `reuse` where there are none or
    where the steepest mask stands out after all.
    """

    num_masks: int | None = None
    on_exhausted: Literal["skip", "reuse", "reclaim"] = "reclaim"

    def __post_init__(self) -> None:
        if self.num_masks is not None and self.num_masks < 1:
            raise InputError(f"num_masks: must be at least 1, not {self.num_masks}")


@dataclass(frozen=True)
class Decision:
    """What became of one segment.

    `num_masks` (k) learned masks were in the superposition; `best` and `second` are the numbers of the two
    steepest. `outcome`: `train` on a mask that knows the data, `allocate` a new one, or what the budget's
    policy made of it. `mask` trains on the segment (None: nothing does); `freed` gave its place to it.
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
        """Statistic minus threshold: at least 0 for known data."""
        return self.statistic - self.threshold


@dataclass
class Allocator:
    """Decides for segments, and keeps the masks they are decided with.

    Decisions of a round are all taken from the masks as the round found them; then each chosen mask is
    trained and handed back with `trained`, and `end_round` puts the new bits in place.

    `draw(number)` gives the packed initial mask of mask `number`, which also serves as an untrained one.
    """

    layers: Sequence[Layer]
    test: AllocationTest
    policy: Literal["skip", "reuse", "reclaim"]
    capacity: int
    draw: Callable[[int], codec.Bits]
    live: list[int] = field(default_factory=list)
    """Numbers of the masks in the bank, by place."""
    num_allocated: int = 0
    """Masks allocated so far, those since freed included; the next one's number."""
    trained_segments: Counter[int] = field(default_factory=Counter)
    together: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How often two live masks stood out in the same decision."""

    def __post_init__(self) -> None:
        self._bank = MaskBank(self.layers)
        self._fresh: dict[int, codec.Bits] = {}
        self._handed_back: dict[int, codec.Bits] = {}

    def replay(self, decisions: Sequence[Decision]) -> None:
        """Take up the books after `decisions`, all of whole rounds; `fill` must follow."""
        for decision in decisions:
            self._note(decision)

    def fill(self, bits: Callable[[int], codec.Bits]) -> None:
        """Take up the masks themselves: `bits(number)` gives each live one."""
        for number in self.live:
            self._bank.add(bits(number))

    @property
    def rows(self) -> codec.Bits:
        """The live masks as packed bits (k, ceil(n / 8)), by place. A view; do not write to it."""
        return self._bank.rows

    def untrained(self) -> list[codec.Bits]:
        """The untrained masks that stand in the next superposition: those to be allocated next."""
        count = self.test.num_untrained(len(self.live)) if self.live else 0
        wanted = range(self.num_allocated, self.num_allocated + count)
        self._fresh = {n: self._fresh[n] if n in self._fresh else self.draw(n) for n in wanted}
        return list(self._fresh.values())

    def superposition(self) -> Tensor | None:
        """The mean of all masks in the superposition, flat float32 (n,); None while there is none to choose."""
        if not self.live:
            return None
        untrained = self.untrained()
        counts = self._bank.counts.copy()
        for bits in untrained:
            counts += codec.unpack(bits, self._bank.size)
        return torch.from_numpy(counts.astype(np.float32)) / (len(self.live) + len(untrained))

    def slopes(self, vectors: Tensor) -> Slopes:
        """Steepness of each mask for each of D decisions: (D, n), -d objective / dW * W, to (D, k + untrained)."""
        untrained = self.untrained()
        found = [inner_products(self._bank.rows, self._bank.size, vectors)]
        if untrained:
            found.append(inner_products(np.stack(untrained), self._bank.size, vectors))
        return torch.cat(found, 1).double().numpy()

    def decide(self, slopes: Slopes) -> list[Decision]:
        """The decisions of one round, in order, from `slopes` (D, k + untrained); (D, 0) when k is 0.

        A mask allocated earlier in the round counts against the budget but cannot be chosen yet.
        """
        start = list(self.live)
        steepest = [start[int(row[: len(start)].argmax())] for row in slopes] if start else []
        chosen: set[int] = set()
        decisions = []
        for index, row in enumerate(slopes):
            decision = self._decide(row, start, chosen.union(steepest[index + 1 :]))
            self._note(decision)
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
        found = standing_out(slopes, k, _REDUNDANT_RATE / self.capacity).masks
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
        """What to do, and the mask to free for it: none that the round has chosen, or may yet choose."""
        if verdict.known and usable:
            return "train", None
        if len(self.live) < self.capacity:
            return "allocate", None
        if self.policy == "skip" or not usable:
            return "skip", None
        freed = self._redundant(chosen) if self.policy == "reclaim" and not outliers else None
        return ("reuse", None) if freed is None else ("reclaim", freed)

    def _redundant(self, chosen: set[int]) -> int | None:
        """The less trained of the two masks that most often stood out together."""
        for (old, young), _ in sorted(self.together.items(), key=lambda item: (-item[1], item[0])):
            victim = old if self.trained_segments[old] < self.trained_segments[young] else young
            if victim not in chosen:
                return victim
        return None

    def _note(self, decision: Decision) -> None:
        """Keep the books: what is live, how much it was trained, and which masks stand out together."""
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
        """Hand back the bits of a mask that was trained; they count from the end of the round on."""
        self._handed_back[number] = bits

    def end_round(self) -> None:
        """Put the masks of the round in place."""
        for number in sorted(self._handed_back):
            place = self.live.index(number)
            if place < self._bank.num_masks:
                self._bank.replace(place, self._handed_back[number])
            else:
                self._bank.add(self._handed_back[number])
        self._handed_back.clear()
