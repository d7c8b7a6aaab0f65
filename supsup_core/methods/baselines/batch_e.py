"""BatchE: each task trains two vectors per layer, on shared weights (Wen et al. 2020; paper, section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, final

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.errors import CorruptError, InputError
from supsup_core.methods.base import METHODS, Dependence, Learned, Method, Problem, States
from supsup_core.methods.fitting import fit
from supsup_core.methods.layer_tensors import load_layer_tensors, name_layer_tensors
from supsup_core.methods.learners import SuperposingLearner
from supsup_core.methods.weights_learner import WeightsLearner
from supsup_core.nets.base import Layer, Objective
from supsup_core.nets.weights import draw_uniform
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint
from supsup_core.training.parametrizations import RankOne

Pair: TypeAlias = "tuple[Tensor, Tensor]"
"""The vectors of one layer: for its outputs (out,) and for its inputs (in,)."""


def fresh_vectors(layers: Sequence[Layer], seed: int, index: int) -> list[Pair]:
    """The initial vectors of task `index`, one pair for each layer: -1 or +1 with equal probability."""
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
            raise CorruptError(f"the stored state of a task has no vectors of layer {layer.name}, {layer.shape}")
        pairs.append((outputs.to(problem.device), inputs.to(problem.device)))
    return pairs


def _outer(outputs: Tensor, inputs: Tensor, layer: Layer) -> Tensor:
    """The sum of the outer products of outputs (k, out) and inputs (k, in), shaped to multiply the layer's weight."""
    return (outputs.t() @ inputs).view(*layer.shape[:2], *(1,) * (len(layer.shape) - 2))


class _RankOneMasks:
    """The shared weights and the rank-one masks of k tasks."""

    def __init__(self, problem: Problem, base: Sequence[Tensor], states: States) -> None:
        self._layers = problem.layers
        self.base = base
        columns = zip(*(_vectors(state, problem) for state in states), strict=True)
        self.pairs: list[Pair] = [
            (torch.stack([r for r, _ in column]), torch.stack([s for _, s in column])) for column in columns
        ]

    def superposed(self, masks: Tensor) -> list[Tensor]:
        """The weights under the mean of the masks with the int64 numbers `masks`."""
        return [
            weight * _outer(outputs[masks], inputs[masks], layer).div_(len(masks))
            for weight, (outputs, inputs), layer in zip(self.base, self.pairs, self._layers, strict=True)
        ]


@final
class BatchELearner(SuperposingLearner):
    """Predicts labels with shared weights, multiplied by each task's matrix of rank one.

    The matrices can be superposed like binary masks.
    """

    def __init__(self, problem: Problem, base: Sequence[Tensor], states: States) -> None:
        masks = _RankOneMasks(problem, base, states)
        self._problem, self._masks = problem, masks
        self._single = WeightsLearner(problem, states, lambda mask: masks.superposed(torch.tensor([mask])))
        self.weights_of = self._single.weights_of
        self.num_masks, self.num_labels = len(states), problem.num_labels
        self.normalises_by_batch = problem.net.normalises_by_batch

    def logits(self, x: Tensor, mask: int) -> Tensor:
        return self._single.logits(x, mask)

    def alpha_gradients(self, x: Tensor, subset: Tensor | None, objective: Objective) -> Tensor:
        masks = torch.arange(self.num_masks) if subset is None else subset
        problem = self._problem
        mean = self._masks.superposed(masks)
        rows = []
        for gradients in problem.net.decision_gradients(mean, x.to(problem.device), objective, problem.num_labels):
            row = torch.zeros(len(masks), device=problem.device)
            for gradient, weight, (outputs, inputs) in zip(gradients, self._masks.base, self._masks.pairs, strict=True):
                pairs = (gradient * weight).flatten(2).sum(2) if weight.dim() > 2 else gradient * weight
                row += ((outputs[masks] @ pairs) * inputs[masks]).sum(1)
            rows.append(row)
        return torch.stack(rows).cpu()


def fresh_base(problem: Problem) -> list[Tensor]:
    """The initial shared weights: Kaiming uniform in every net.

    Kaiming uniform weights reproduce the published accuracy on permuted tasks to 0.1 points. Signed constants give an
    accuracy that is 0.3 points lower.
    """
    return [weight.to(problem.device) for weight in draw_uniform(problem.layers, problem.seed, "dense", 0)]


@final
@METHODS.register("batch_e")
@dataclass(frozen=True, kw_only=True)
class BatchE(Method):
    """Learns a rank-one mask for each task and layer, on shared weights.

    `weights`: `trained` trains the shared weights on the first task, together with the task's vectors, all at
    `weight_learning_rate`, and then fixes them. `random` uses the frozen random weights. If the task is unknown,
    `inference.rule` one_shot or binary superposes the rank-one masks. exhaustive tries each mask, as in the authors'
    code.
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
        """The shared weights. Trained weights are read from the state of the first task, `states[0]`."""
        if self.weights == "random":
            return problem.weights
        return load_layer_tensors(states[0], "weights.", problem, problem.layers)

    def learner(self, problem: Problem, states: States) -> BatchELearner:
        return BatchELearner(problem, self._base(problem, states), states)
