"""BatchE: two vectors a task and layer, over weights that all tasks share (Wen et al. 2020; paper, section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.errors import CorruptError, InputError
from supsup_core.methods.base import METHODS, Dependence, Learned, Method, Problem, States
from supsup_core.methods.fitting import fit
from supsup_core.methods.layer_tensors import load_layer_tensors, name_layer_tensors
from supsup_core.methods.learners import Learner
from supsup_core.methods.weights_learner import WeightsLearner
from supsup_core.nets.base import Layer, Objective, draw_uniform
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint
from supsup_core.training.parametrizations import RankOne

Pair: TypeAlias = "tuple[Tensor, Tensor]"
"""The vectors of one layer over its outputs (out,) and its inputs (in,)."""


def fresh_vectors(layers: Sequence[Layer], seed: int, index: int) -> list[Pair]:
    """A task's vectors before its training: -1 or +1 with equal probability."""
    drawn = []
    for layer in layers:
        pair = [
            torch.from_numpy(seeding.signs(seeding.child_seed(seed, f"{side}/{layer.name}", index), (size,)))
            for side, size in zip(("outputs", "inputs"), layer.shape[:2], strict=True)
        ]
        drawn.append((pair[0], pair[1]))
    return drawn


def _vectors(state: Mapping[str, Tensor], problem: Problem) -> list[Pair]:
    pairs = []
    for layer in problem.layers:
        outputs, inputs = (state.get(f"{side}.{layer.name}") for side in ("outputs", "inputs"))
        if outputs is None or inputs is None or (len(outputs), len(inputs)) != layer.shape[:2]:
            raise CorruptError(f"what is stored of a task has no vectors of layer {layer.name}, {layer.shape}")
        pairs.append((outputs.to(problem.device), inputs.to(problem.device)))
    return pairs


def _outer(outputs: Tensor, inputs: Tensor, layer: Layer) -> Tensor:
    """Sum over masks of outer products, (k, out) and (k, in), in a shape that multiplies the layer's weight."""
    return (outputs.t() @ inputs).view(*layer.shape[:2], *(1,) * (len(layer.shape) - 2))


class BatchELearner(WeightsLearner):
    """Shared weights under rank-one masks, which superpose as binary ones do."""

    def __init__(self, problem: Problem, base: Sequence[Tensor], states: States) -> None:
        super().__init__(problem, states)
        self._base = base
        columns = zip(*(_vectors(state, problem) for state in states), strict=True)
        self._stacked: list[Pair] = [
            (torch.stack([r for r, _ in column]), torch.stack([s for _, s in column])) for column in columns
        ]

    def _superposed(self, masks: Tensor) -> list[Tensor]:
        """The weights under the mean of some masks."""
        return [
            weight * _outer(outputs[masks], inputs[masks], layer).div_(len(masks))
            for weight, (outputs, inputs), layer in zip(self._base, self._stacked, self._problem.layers, strict=True)
        ]

    def weights(self, mask: int) -> list[Tensor]:
        return self._superposed(torch.tensor([mask]))

    def alpha_gradients(self, x: Tensor, subset: Tensor | None, objective: Objective) -> Tensor:
        masks = torch.arange(self.num_masks) if subset is None else subset
        problem = self._problem
        mean = self._superposed(masks)
        rows = []
        for gradients in problem.net.decision_gradients(mean, x.to(problem.device), objective, problem.num_labels):
            row = torch.zeros(len(masks), device=problem.device)
            for gradient, weight, (outputs, inputs) in zip(gradients, self._base, self._stacked, strict=True):
                pairs = (gradient * weight).flatten(2).sum(2) if weight.dim() > 2 else gradient * weight
                row += ((outputs[masks] @ pairs) * inputs[masks]).sum(1)
            rows.append(row)
        return torch.stack(rows).cpu()


def fresh_base(problem: Problem) -> list[Tensor]:
    """The shared weights before the first task: Kaiming uniform in every net, with which the published figures for
    permutations come out to 0.1 points; from signed constants accuracy ends 0.3 points lower."""
    return [weight.to(problem.device) for weight in draw_uniform(problem.layers, problem.seed, "dense", 0)]


@METHODS.register("batch_e")
@dataclass(frozen=True, kw_only=True)
class BatchE(Method):
    """A rank-one mask a task and layer over shared weights.

    `weights`: `trained` with the vectors on the first task, all at `weight_learning_rate`, and fixed from then on;
    or the `random` frozen ones. Where the task is unknown, `inference.rule` one_shot or binary superposes the
    rank-one masks, and exhaustive, as the authors did, tries each.
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG", "GNs", "GNu"})
    superposes: ClassVar[bool] = True

    weights: Literal["trained", "random"] = "trained"
    weight_learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        if not self.weight_learning_rate > 0:
            raise InputError(f"weight_learning_rate: must be positive, not {self.weight_learning_rate}")

    @property
    def dependence(self) -> Dependence:
        return Dependence.INDEPENDENT if self.weights == "random" else Dependence.AFTER_FIRST

    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        trains_weights = self.weights == "trained" and index == 0
        base = fresh_base(problem) if trains_weights else self._base(problem, parents)
        vectors = [
            (r.to(problem.device), s.to(problem.device)) for r, s in fresh_vectors(problem.layers, problem.seed, index)
        ]
        layers = [RankOne(w, r, s, trains_weights) for w, (r, s) in zip(base, vectors, strict=True)]
        changes: dict[str, Any] = {"learning_rate": self.weight_learning_rate} if trains_weights else {}
        fitted = fit(problem, index, task, keep, layers, **changes)
        state = name_layer_tensors("outputs.", problem.layers, [r for r, _ in vectors])
        state |= name_layer_tensors("inputs.", problem.layers, [s for _, s in vectors])
        return fitted.learned(state | (name_layer_tensors("weights.", problem.layers, base) if trains_weights else {}))

    def _base(self, problem: Problem, states: States) -> list[Tensor]:
        """The shared weights; the first of `states` holds them where they were trained."""
        if self.weights == "random":
            return problem.weights
        return load_layer_tensors(states[0], "weights.", problem, problem.layers)

    def learner(self, problem: Problem, states: States) -> Learner:
        return BatchELearner(problem, self._base(problem, states), states)
