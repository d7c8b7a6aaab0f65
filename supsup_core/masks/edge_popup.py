"""Scores to masks and back: which weights are kept, and where the gradient goes (paper, section 3)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from supsup_core.errors import InputError
from supsup_core.nets.base import Layer, draw_uniform


def num_kept(density: float, size: int) -> int:
    """How many of `size` weights a density keeps: max(1, round(density * size)), halves to even."""
    return max(1, round(density * size))


def erdos_renyi_density(budget: float, shape: Sequence[int]) -> float:
    """The share of a layer (out, in, *kernel) that a budget b keeps: min(0.5, b * (out + in) / number of weights)."""
    return min(0.5, budget * (shape[0] + shape[1]) / math.prod(shape))


def top_k_mask(scores: Tensor, count: int, by_size: bool = False, out: Tensor | None = None) -> Tensor:
    """A mask of exactly `count` ones on the largest of the scores, or of their sizes; ties to the lowest index.

    scores: any shape, float32, finite. Returns float32 of that shape (`out` when given).
    """
    result = out if out is not None else torch.empty_like(scores)
    if all(t.device.type == "cpu" and t.dtype == torch.float32 and t.is_contiguous() for t in (scores, result)):
        from supsup_core.kernels.top_k import keep_largest  # loads numba, which takes 0.2 s

        bits = scores.detach().view(-1).view(torch.int32).numpy().view(np.uint32)
        keep_largest(bits, count, by_size, result.view(-1).numpy())
        return result
    flat = (scores.abs() if by_size else scores).reshape(-1)
    smallest_kept = torch.kthvalue(flat, flat.numel() - count + 1).values
    above = flat > smallest_kept
    missing = count - int(above.sum())
    tied = torch.nonzero(flat == smallest_kept).squeeze(1)[:missing]
    above[tied] = True
    return result.copy_(above.view(scores.shape))


class MaskRule(ABC):
    """From the scores of one layer to its mask, and from a mask's gradient to the scores'."""

    elementwise: ClassVar[bool] = False
    """Whether each weight's mask depends on its own score alone, so that several tasks' scores may be stacked."""

    @abstractmethod
    def mask(self, scores: Tensor, out: Tensor) -> Tensor:
        """Write the 0/1 float32 mask of `scores` (one layer's shape) into `out`; return it."""

    def to_scores(self, scores: Tensor, gradient: Tensor) -> Tensor:
        """Turn the gradient in the mask into that in the scores, in place (straight-through)."""
        return gradient


@dataclass(frozen=True)
class Threshold(MaskRule):
    """Keep score >= `at`: 0, as in every MNIST experiment of the paper."""

    elementwise: ClassVar[bool] = True

    at: float = 0.0

    def mask(self, scores: Tensor, out: Tensor) -> Tensor:
        return torch.ge(scores, self.at, out=out)


@dataclass(frozen=True)
class TopK(MaskRule):
    """Keep exactly max(1, round(density * n)) weights of a layer, ranked by |score| or by the raw score.

    The straight-through gradient is that of what is ranked: times sign(score) for |score|.
    """

    density: float
    rank_abs: bool

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise InputError(f"density: must be in (0, 1], not {self.density}")

    def mask(self, scores: Tensor, out: Tensor) -> Tensor:
        return top_k_mask(scores, num_kept(self.density, scores.numel()), self.rank_abs, out)

    def to_scores(self, scores: Tensor, gradient: Tensor) -> Tensor:
        return gradient.mul_(scores.sign()) if self.rank_abs else gradient


@dataclass(frozen=True)
class Each(MaskRule):
    """A rule for the stacked scores of several tasks, (T, *shape): each task's mask is what `rule` makes of its own."""

    rule: MaskRule

    def mask(self, scores: Tensor, out: Tensor) -> Tensor:
        if self.rule.elementwise:
            return self.rule.mask(scores, out)
        for own, its in zip(scores, out, strict=True):
            self.rule.mask(own, its)
        return out

    def to_scores(self, scores: Tensor, gradient: Tensor) -> Tensor:
        return self.rule.to_scores(scores, gradient)


def draw_scores(layers: Sequence[Layer], seed: int, task: int) -> list[Tensor]:
    """Fresh scores of a task: Kaiming uniform with a = sqrt(5)."""
    return draw_uniform(layers, seed, "scores", task)
