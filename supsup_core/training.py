"""The one training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.benchmarks.base import Task
from supsup_core.errors import InputError, SupSupError
from supsup_core.masks.edge_popup import MaskRule
from supsup_core.nets.base import Net
from supsup_core.optimizers import OPTIMIZERS


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How one task is trained. The defaults are the paper's for MNIST.

    `num_batches` counts optimiser steps of `batch_size` images each.
    """

    optimizer: str = "rmsprop"
    learning_rate: float = 1e-4
    num_batches: int = 1000
    batch_size: int = 128

    def __post_init__(self) -> None:
        OPTIMIZERS[self.optimizer]
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate: must be positive, not {self.learning_rate}")
        for field in ("num_batches", "batch_size"):
            if getattr(self, field) < 1:
                raise InputError(f"{field}: must be at least 1, not {getattr(self, field)}")


@dataclass(frozen=True)
class LossCurve:
    """Mean training loss of each stretch of batches, and the number of batches done at its end."""

    batches: list[int]
    losses: list[float]


NUM_POINTS = 10
"""Points of a loss curve, at most, so that thousands of tasks stay readable."""


def batch_order(recipe: TrainingRecipe, task: Task, seed: int) -> Tensor:
    """The training images of each batch of one task, (num_batches, batch_size), as `seed` draws them."""
    return torch.from_numpy(seeding.batches(seed, task.num_train, recipe.num_batches, recipe.batch_size))


def train(
    task: Task, order: Tensor, step: Callable[[Tensor, Tensor], Tensor], num_points: int = NUM_POINTS
) -> LossCurve:
    """Run `step(x, y) -> loss` over batches of a task: order (batches, batch_size) holds image indices.

    The curve has at most `num_points` points. SupSupError when the loss is no longer finite.
    """
    curve = LossCurve([], [])
    interval = -(-len(order) // num_points)
    total: Tensor | float = 0.0
    since = 0
    for index, indices in enumerate(order, start=1):
        total = total + step(*task.train_batch(indices)).double()
        since += 1
        if index % interval == 0 or index == len(order):
            mean = float(total) / since
            if not math.isfinite(mean):
                raise SupSupError(f"the training loss is {mean} after {index} batches; lower learning_rate")
            curve.batches.append(index)
            curve.losses.append(mean)
            total = 0.0
            since = 0
    return curve


class ScoreStep:
    """One step of edge-popup: mask from scores, forward, backward, optimiser (paper, section 3.1).

    Weights and scores: one float32 tensor per layer. Scores are updated in place.
    """

    def __init__(
        self, net: Net, weights: Sequence[Tensor], scores: Sequence[Tensor], rule: MaskRule, recipe: TrainingRecipe
    ) -> None:
        self._net = net
        self._weights = weights
        self._scores = scores
        self._rule = rule
        self._optimizer = OPTIMIZERS[recipe.optimizer](scores, recipe.learning_rate)
        self._effective = [torch.empty_like(s) for s in scores]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Train on images x (batch, *shape) and labels y (batch,); returns the mean loss before the step."""
        device = self._scores[0].device
        for weight, scores, effective in zip(self._weights, self._scores, self._effective, strict=True):
            self._rule.mask(scores, effective).mul_(weight)
        loss, gradients = self._net.loss_gradients(self._effective, x.to(device), y.to(device))
        for weight, scores, gradient in zip(self._weights, self._scores, gradients, strict=True):
            self._rule.to_scores(scores, gradient.mul_(weight))
        self._optimizer.step(gradients)
        return loss

    @property
    def state(self) -> dict[str, Tensor]:
        """The live tensors of scores and optimiser, by name: all that going on exactly needs."""
        scores = {f"scores.{index}": tensor for index, tensor in enumerate(self._scores)}
        return {**scores, **self._optimizer.state}
