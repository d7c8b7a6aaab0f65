"""Edge-popup: masks from scores, and the straight-through gradient of the scores (paper, section 3)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from supsup_core.errors import InputError
from supsup_core.nets.base import Layer
from supsup_core.nets.weights import draw


def num_kept(density: float, size: int) -> int:
    """The number of kept weights out of `size`: max(1, round(density * size)), where halves round to even."""
    return max(1, round(density * size))


def erdos_renyi_density(budget: float, shape: Sequence[int]) -> float:
    """The Erdős–Rényi density of a layer (out, in, *kernel): min(0.5, budget * (out + in) / number of weights)."""
    return min(0.5, budget * (shape[0] + shape[1]) / math.prod(shape))


def top_k_mask(scores: Tensor, count: int, by_size: bool = False, out: Tensor | None = None) -> Tensor:
    """A mask that keeps exactly the `count` largest scores, or with `by_size` the largest absolute scores.

    Ties go to the lowest index. scores: any shape, float32, finite. Returns a float32 tensor of the same shape, which
    is `out` if given.
    """
    result = out if out is not None else torch.empty_like(scores)
    if all(t.device.type == "cpu" and t.dtype == torch.float32 and t.is_contiguous() for t in (scores, result)):
        from supsup_core.kernels.top_k import keep_largest  # the import loads numba, which takes 0.2 s

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
    """Computes a layer's mask from its scores, and the gradient of the scores from the gradient of the mask."""

    elementwise: ClassVar[bool] = False
    """Whether each mask bit depends only on the score of the same weight. For an elementwise rule, one call can compute
    the masks of several tasks from their stacked scores."""

    @abstractmethod
    def mask(self, scores: Tensor, out: Tensor) -> Tensor:
        """Write the float32 mask of zeros and ones for `scores` (one layer's shape) into `out`, and return `out`."""

    @abstractmethod
    def to_scores(self, scores: Tensor, gradient: Tensor) -> Tensor:
        """Returns the straight-through gradient with respect to the scores.

        gradient: the gradient with respect to the mask. `gradient` may be overwritten.
        """


@final
@dataclass(frozen=True)
class Threshold(MaskRule):
    """Keeps the weights whose score is >= `at`. The paper uses the threshold 0 in every MNIST experiment."""

    elementwise: ClassVar[bool] = True

    at: float = 0.0

    def mask(self, scores: Tensor, out: Tensor) -> Tensor:
        return torch.ge(scores, self.at, out=out)

    def to_scores(self, scores: Tensor, gradient: Tensor) -> Tensor:
        return gradient


@final
@dataclass(frozen=True)
class TopK(MaskRule):
    """Keeps exactly max(1, round(density * n)) weights of a layer, ranked by |score| or by the raw score.

    The straight-through gradient is the gradient with respect to the ranked value. If |score| is ranked, the gradient
    is therefore multiplied by sign(score). `rank_abs`: True to rank by |score|.
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


@final
@dataclass(frozen=True)
class Each(MaskRule):
    """Applies `rule` to the scores of each task in a stack of T tasks, (T, *shape)."""

    rule: MaskRule

    def mask(self, scores: Tensor, out: Tensor) -> Tensor:
        if self.rule.elementwise:
            return self.rule.mask(scores, out)
        for task_scores, task_out in zip(scores, out, strict=True):
            self.rule.mask(task_scores, task_out)
        return out

    def to_scores(self, scores: Tensor, gradient: Tensor) -> Tensor:
        return self.rule.to_scores(scores, gradient)


def draw_scores(layers: Sequence[Layer], seed: int, task: int) -> list[Tensor]:
    """The initial scores of a task, one tensor for each layer: Kaiming uniform with a = sqrt(5)."""
    return draw("uniform", layers, seed, "scores", task)
