"""Trains a task with the problem's recipe: draws initial weights, and runs the training loop on parametrizations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from supsup_core.methods.base import Learned, Problem
from supsup_core.methods.norm_statistics import measure_norms
from supsup_core.nets.base import Layer
from supsup_core.nets.weights import draw
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import Checkpoint
from supsup_core.training.loop import LossCurve, LossGradients, Step, batch_order, train
from supsup_core.training.parametrizations import Dense, Fixed, Parametrization


def fresh_weights(problem: Problem, index: int = 0) -> list[Tensor]:
    """Returns initial values for weights that task `index` trains, one tensor for each layer, on the problem's device.

    The gates of a net start at 1.
    """
    return _fresh(problem, problem.layers, "dense", index)


def fresh_head(problem: Problem, index: int) -> list[Tensor]:
    """Returns the initial weight of the last layer for task `index`, as a list of one tensor."""
    return _fresh(problem, problem.layers[-1:], "head", index)


def _fresh(problem: Problem, layers: Sequence[Layer], purpose: str, index: int) -> list[Tensor]:
    how = problem.net.initial_weights or problem.net.trained_from
    drawn = zip(layers, draw(how, layers, problem.seed, purpose, index), strict=True)
    return [(torch.ones_like(w) if layer.is_gate else w).to(problem.device) for layer, w in drawn]


def dense(problem: Problem, weights: Sequence[Tensor]) -> list[Parametrization]:
    """Returns one parametrization for each layer, which trains the layer's weight directly. Gates are not trained."""
    return [Fixed(w) if layer.is_gate else Dense(w) for layer, w in zip(problem.layers, weights, strict=True)]


@dataclass(frozen=True)
class Fitted:
    """The result of `fit`: a loss curve, and the batch-normalisation statistics `norms` as entries of a task's state.

    The statistics are measured with the final weights.
    """

    curve: LossCurve
    norms: dict[str, Tensor]

    def learned(self, state: Mapping[str, Tensor]) -> Learned:
        """Returns the learned task. The stored tensors of the task are `state` and `norms`."""
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
    """Train `layers` on task `index` with the problem's recipe.

    layers: a parametrization for each layer of the net. Training updates the tensors of the parametrizations in place.
    loss_gradients: a function to use instead of `Net.loss_gradients`. keep: stores checkpoints. If `keep` already holds
    a checkpoint of this training, the training resumes from this checkpoint. changes: new values for fields of the
    recipe, by name.
    """
    recipe = replace(problem.recipe, **changes)
    order = batch_order(recipe, task, problem.order_seed(index))
    curve = train(task, order, Step(layers, recipe, loss_gradients or problem.net.loss_gradients), checkpoint=keep)
    return Fitted(curve, measure_norms(problem, index, task, [layer.weight() for layer in layers]))
