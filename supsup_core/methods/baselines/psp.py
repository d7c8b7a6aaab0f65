"""PSP: one network trained throughout, in which each task turns the inputs of every layer (Cheung et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.errors import InputError
from supsup_core.methods.base import METHODS, SHARED, Dependence, Learned, Method, Problem, States
from supsup_core.methods.fitting import dense, fit, fresh_weights
from supsup_core.methods.layer_tensors import load_layer_tensors, name_layer_tensors
from supsup_core.methods.learners import Learner
from supsup_core.methods.weights_learner import WeightsLearner
from supsup_core.nets.base import Layer
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint


def rotations(problem: Problem, index: int) -> list[Tensor]:
    """The orthogonal matrices of task `index`, (in, in) for each layer: uniform over all, drawn from the seed."""
    drawn = []
    for layer in problem.layers:
        child = seeding.child_seed(problem.seed, f"rotation/{layer.name}", index)
        q, r = torch.linalg.qr(torch.from_numpy(seeding.normal(child, (layer.fan_in, layer.fan_in))))
        drawn.append((q * r.diagonal().sign()).float().to(problem.device))
    return drawn


class PSPLearner(WeightsLearner):
    """The weights as the last task left them, turned as each task needs them."""

    def __init__(self, problem: Problem, states: States) -> None:
        super().__init__(problem, states)
        self._shared = load_layer_tensors(states[-1], SHARED, problem, problem.layers)

    def weights(self, mask: int) -> list[Tensor]:
        return [w @ turn for w, turn in zip(self._shared, rotations(self._problem, mask), strict=True)]


@METHODS.register("psp")
@dataclass(frozen=True, kw_only=True)
class PSP(Method):
    """Parameter superposition with rotations: the tasks' weights lie in one tensor, turned against one another.

    Stores nothing of a task but the shared weights: the rotations are drawn again from the seed.
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG"})
    superposes: ClassVar[bool] = False

    @property
    def dependence(self) -> Dependence:
        return Dependence.SEQUENTIAL

    def check(self, layers: Sequence[Layer], num_labels: int, num_tasks: int) -> None:
        if any(len(layer.shape) != 2 or layer.is_gate for layer in layers):
            raise InputError("name: psp turns the inputs of fully connected layers; take an MLP, or another method")

    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        layers = problem.layers
        turns = rotations(problem, index)
        weights = (
            [tensor.clone() for tensor in load_layer_tensors(parents[0], SHARED, problem, layers)]
            if parents
            else fresh_weights(problem)
        )
        turned = partial(problem.net.turned_loss_gradients, turns)
        fitted = fit(problem, index, task, keep, dense(problem, weights), turned)
        return fitted.learned(name_layer_tensors(SHARED, layers, weights))

    def learner(self, problem: Problem, states: States) -> Learner:
        return PSPLearner(problem, states)
