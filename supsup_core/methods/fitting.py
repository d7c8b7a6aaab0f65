"""Trains a task with the problem's recipe: initial weights, parametrizations, and the call of the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from supsup_core.methods.base import Learned, Problem
from supsup_core.methods.norm_statistics import measure_norms
from supsup_core.nets.base import Layer
from supsup_core.nets.weights import draw_signed, draw_uniform
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import Checkpoint
from supsup_core.training.loop import LossCurve, LossGradients, Step, batch_order, train
from supsup_core.training.parametrizations import Dense, Fixed, Parametrization


def fresh_weights(problem: Problem, index: int = 0) -> list[Tensor]:
    """Initial values of trained weights, one tensor for each layer, on the problem's device."""
    return _fresh(problem, problem.layers, "dense", index)


def fresh_head(problem: Problem, index: int) -> list[Tensor]:
    """The initial weight of the last layer of task `index`, as a list of one tensor."""
    return _fresh(problem, problem.layers[-1:], "head", index)


def _fresh(problem: Problem, layers: Sequence[Layer], purpose: str, index: int) -> list[Tensor]:
    draw = draw_signed if problem.net.trained_from_signs else draw_uniform
    drawn = zip(layers, draw(layers, problem.seed, purpose, index), strict=True)
    return [(torch.ones_like(w) if layer.is_gate else w).to(problem.device) for layer, w in drawn]


def dense(problem: Problem, weights: Sequence[Tensor]) -> list[Parametrization]:
    """Parametrizations that train the net's weights directly, one for each layer in order. Gates stay at 1."""
    return [Fixed(w) if layer.is_gate else Dense(w) for layer, w in zip(problem.layers, weights, strict=True)]


@dataclass(frozen=True)
class Fitted:
    """The loss curve of a training, and the final statistics of batch normalisation as entries of a task's state."""

    curve: LossCurve
    norms: dict[str, Tensor]

    def learned(self, state: Mapping[str, Tensor]) -> Learned:
        """The learned task: its state is `state` together with the statistics."""
        return Learned({**state, **self.norms}, self.curve)


def fit(
    problem: Problem,
    index: int,
    task: Task,
    keep: Checkpoint,
    layers: Sequence[Parametrization],
    loss_gradients: LossGradients | None = None,
    **changes: Any,
) -> Fitted:
    """Train on task `index` with the problem's recipe. `changes` replace fields of the recipe.

    layers: a parametrization for each layer, whose tensors are updated in place. loss_gradients: replaces
    `Net.loss_gradients`. keep: stores checkpoints; if one is stored already, training resumes from it.
    """
    recipe = replace(problem.recipe, **changes)
    order = batch_order(recipe, task, problem.order_seed(index))
    curve = train(task, order, Step(layers, recipe, loss_gradients or problem.net.loss_gradients), checkpoint=keep)
    return Fitted(curve, measure_norms(problem, index, task, [layer.weight() for layer in layers]))
