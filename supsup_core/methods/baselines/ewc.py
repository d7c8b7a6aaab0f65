"""Online EWC: a penalty on changes to the weights that are important for earlier tasks (Schwarz et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.errors import InputError
from supsup_core.field_limits import MOST_IMAGES, check_limits, limited
from supsup_core.methods.base import METHODS, SHARED, ChecksProblem, Dependence, Learned, Method, Problem, States
from supsup_core.methods.baselines.bounds import heads_learner
from supsup_core.methods.fitting import dense, fit, fresh_head, fresh_weights
from supsup_core.methods.layer_tensors import load_layer_tensors, name_layer_tensors
from supsup_core.methods.learners import Learner
from supsup_core.methods.norm_statistics import load_norms
from supsup_core.nets.base import Layer
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint
from supsup_core.training.parametrizations import Anchored

_FISHER = f"{SHARED}fisher."


def fisher(
    problem: Problem, weights: Sequence[Tensor], norms: Sequence[Tensor], task: Task, index: int, num_images: int
) -> list[Tensor]:
    """Estimates the diagonal of the Fisher information at `weights`, one tensor for each layer.

    The estimate is the mean squared gradient of log p(label) over `num_images` random training images of task `index`.
    Each label is drawn from the softmax of the net's outputs. norms: the net's batch-normalisation statistics.
    """
    child = seeding.child_seed(problem.seed, "fisher", index)
    order = torch.from_numpy(seeding.permutation(child, task.num_train))[:num_images]
    drawn = seeding.uniform(seeding.child_seed(problem.seed, "fisher labels", index), (len(order),), 0.5)
    thresholds = torch.from_numpy(drawn).double() + 0.5
    total = [torch.zeros_like(weight) for weight in weights]
    for indices, point in zip(torch.split(order, 1), thresholds.tolist(), strict=True):
        x = task.train_batch(indices)[0].to(problem.device)

        def log_likelihood(logits: Tensor, num_labels: int, point: float = point) -> Tensor:
            log_p = torch.log_softmax(logits, -1).flatten()
            answered = log_p.detach().cpu()  # torch has no deterministic cumsum on CUDA
            below = int((answered.double().exp().cumsum(0) < point).sum())
            return log_p[min(below, len(log_p) - 1)]

        (gradients,) = problem.net.decision_gradients([*weights, *norms], x[None], log_likelihood, 0)
        for sums, gradient in zip(total, gradients, strict=True):
            sums.add_(gradient.square_())
    return [sums.div_(len(order)) for sums in total]


@final
@METHODS.register("ewc")
@dataclass(frozen=True, kw_only=True)
class OnlineEWC(Method, ChecksProblem):
    """The Lower Bound with separate heads, and with a quadratic penalty on changes to the trunk's weights.

    The penalty on a weight is strength / 2 * fisher * (weight - anchor)^2, where anchor is the weight after the
    previous task. After each task, fisher becomes decay * fisher plus the diagonal Fisher information of the task,
    estimated from `fisher_images` training images.
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG"})
    superposes: ClassVar[bool] = False
    trains_layers: ClassVar[bool] = True

    strength: float = limited(100.0, least=0, most=1e12)
    decay: float = 1.0
    fisher_images: int = limited(1024, least=1, most=MOST_IMAGES)

    def __post_init__(self) -> None:
        check_limits(self)
        if not 0 < self.decay <= 1:
            raise InputError(f"decay: must be in (0, 1], not {self.decay}")

    @property
    def dependence(self) -> Dependence:
        return Dependence.SEQUENTIAL

    def check_problem(self, layers: Sequence[Layer], num_labels: int, num_tasks: int) -> None:
        if any(layer.is_gate for layer in layers):
            raise InputError(
                "name: ewc needs gradients of single images, but this net normalises over the batch; use another net"
            )

    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        layers, last = problem.layers[:-1], problem.layers[-1:]
        head = fresh_head(problem, index)
        if parents:
            anchors = load_layer_tensors(parents[0], SHARED, problem, layers)
            importance = load_layer_tensors(parents[0], _FISHER, problem, layers)
            trunk = [anchor.clone() for anchor in anchors]
        else:
            anchors = []
            trunk = fresh_weights(problem)[:-1]
            importance = [torch.zeros_like(weight) for weight in trunk]
        trained = dense(problem, trunk + head)
        for number, (anchor, layer) in enumerate(zip(anchors, layers)):  # noqa: B905 - the first task has no anchors
            if not layer.is_gate:
                trained[number] = Anchored(trunk[number], anchor, importance[number], self.strength)
        fitted = fit(problem, index, task, keep, trained)
        found = fisher(problem, trunk + head, load_norms(fitted.norms, problem), task, index, self.fisher_images)[:-1]
        total = [self.decay * before + now for before, now in zip(importance, found, strict=True)]
        state = {
            **name_layer_tensors(SHARED, layers, trunk),
            **name_layer_tensors(_FISHER, layers, total),
            **name_layer_tensors("head.", last, head),
        }
        return fitted.learned(state)

    def learner(self, problem: Problem, states: States) -> Learner:
        return heads_learner(problem, load_layer_tensors(states[-1], SHARED, problem, problem.layers[:-1]), states)
