"""PSP: all tasks train one network, and each task rotates the inputs of every layer (Cheung et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.errors import InputError
from supsup_core.methods.base import METHODS, SHARED, ChecksProblem, Dependence, Learned, Method, Problem, States
from supsup_core.methods.fitting import dense, fit, fresh_weights
from supsup_core.methods.layer_tensors import load_layer_tensors, name_layer_tensors
from supsup_core.methods.learners import Learner
from supsup_core.methods.weights_learner import WeightsLearner
from supsup_core.nets.base import Layer
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint

_MOST_INPUTS = 10_000
"""The largest number of inputs of a layer. A rotation of n inputs is a matrix of n² numbers."""


def rotations(problem: Problem, index: int) -> list[Tensor]:
    """Returns an orthogonal matrix (in, in) for each layer, drawn uniformly at random for task `index`."""
    drawn = []
    for layer in problem.layers:
        child = seeding.child_seed(problem.seed, f"rotation/{layer.name}", index)
        q, r = torch.linalg.qr(torch.from_numpy(seeding.normal(child, (layer.fan_in, layer.fan_in))))
        drawn.append((q * r.diagonal().sign()).float().to(problem.device))
    return drawn


@final
@METHODS.register("psp")
@dataclass(frozen=True, kw_only=True)
class PSP(Method, ChecksProblem):
    """Parameter superposition with rotations: all tasks train the same weights, and each task rotates them differently.

    Only the shared weights are stored. The rotations are drawn again from the seed whenever they are needed.
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG"})
    superposes: ClassVar[bool] = False

    @property
    def dependence(self) -> Dependence:
        return Dependence.SEQUENTIAL

    def check_problem(self, layers: Sequence[Layer], num_labels: int, num_tasks: int) -> None:
        if any(len(layer.shape) != 2 or layer.is_gate for layer in layers):
            raise InputError("name: psp works only with fully connected layers; use an MLP, or another method")
        if (widest := max(layer.fan_in for layer in layers)) > _MOST_INPUTS:
            raise InputError(
                f"name: psp would rotate {widest:,} inputs of a layer, but at most {_MOST_INPUTS:,} are possible; use "
                "smaller images, a narrower net, or another method"
            )

    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        layers = problem.layers
        own = rotations(problem, index)
        weights = (
            [tensor.clone() for tensor in load_layer_tensors(parents[0], SHARED, problem, layers)]
            if parents
            else fresh_weights(problem)
        )
        loss_gradients = partial(problem.net.turned_loss_gradients, own)
        fitted = fit(problem, index, task, keep, dense(problem, weights), loss_gradients)
        return fitted.learned(name_layer_tensors(SHARED, layers, weights))

    def learner(self, problem: Problem, states: States) -> Learner:
        shared = load_layer_tensors(states[-1], SHARED, problem, problem.layers)
        return WeightsLearner(
            problem, states, lambda mask: [w @ r for w, r in zip(shared, rotations(problem, mask), strict=True)]
        )
