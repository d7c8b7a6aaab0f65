"""BatchE: each task trains two vectors for each layer of shared weights (Wen et al. 2020; paper, section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, final

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.errors import CorruptError, InputError
from supsup_core.field_limits import MOST_RATE, check_limits, limited
from supsup_core.methods.base import METHODS, Dependence, Learned, Method, Problem, States
from supsup_core.methods.fitting import fit
from supsup_core.methods.layer_tensors import load_layer_tensors, name_layer_tensors
from supsup_core.methods.learners import SuperposingLearner
from supsup_core.methods.weights_learner import WeightsLearner
from supsup_core.nets.base import Layer, Objective
from supsup_core.nets.weights import draw
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint
from supsup_core.training.parametrizations import RankOne

Pair: TypeAlias = "tuple[Tensor, Tensor]"
"""The two vectors of one layer: one for the layer's outputs (out,), and one for the layer's inputs (in,)."""


def fresh_vectors(layers: Sequence[Layer], seed: int, index: int) -> list[Pair]:
    """Returns the initial vectors of task `index`, one pair for each layer. Entries are -1 or +1, equally likely."""
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
            raise CorruptError(
                f"the stored state of a task has no vectors for layer {layer.name} of shape {layer.shape}"
            )
        pairs.append((outputs.to(problem.device), inputs.to(problem.device)))
    return pairs


def _outer(outputs: Tensor, inputs: Tensor, layer: Layer) -> Tensor:
    """Returns the sum of the k outer products of the rows of outputs (k, out) and inputs (k, in).

    The shape (out, in, 1, ...) of the result allows a product with the layer's weight.
    """
    return (outputs.t() @ inputs).view(*layer.shape[:2], *(1,) * (len(layer.shape) - 2))


class _RankOneMasks:
    """The shared weights and the vectors of k tasks. A task's outer product of vectors takes the place of its mask."""

    def __init__(self, problem: Problem, base: Sequence[Tensor], states: States) -> None:
        self._layers = problem.layers
        self.base = base
        columns = zip(*(_vectors(state, problem) for state in states), strict=True)
        self.pairs: list[Pair] = [
            (torch.stack([r for r, _ in column]), torch.stack([s for _, s in column])) for column in columns
        ]

    def superposed(self, masks: Tensor) -> list[Tensor]:
        """Returns the shared weights times the mean of the outer products of several tasks.

        masks: the int64 numbers of these tasks.
        """
        return [
            weight * _outer(outputs[masks], inputs[masks], layer).div_(len(masks))
            for weight, (outputs, inputs), layer in zip(self.base, self.pairs, self._layers, strict=True)
        ]


@final
class BatchELearner(SuperposingLearner):
    """Predicts the labels of a task with the shared weights, multiplied by the outer product of the task's vectors.

    The outer products of several tasks can be superposed as binary masks can.
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
    """Returns the initial shared weights. Unless `net.initial_weights` is set, they are uniform in every net."""
    how = problem.net.initial_weights or "uniform"
    return [weight.to(problem.device) for weight in draw(how, problem.layers, problem.seed, "dense", 0)]


@final
@METHODS.register("batch_e")
@dataclass(frozen=True, kw_only=True)
class BatchE(Method):
    """Learns two vectors for each task and layer, whose outer product multiplies the layer's shared weight.

    `weights`: `trained` trains the shared weights on the first task only, together with the first task's vectors, at
    the learning rate `weight_learning_rate`. `random` uses the frozen random weights. If the task is unknown,
    `inference.rule` selects how to infer the task: one_shot, binary and shortlist superpose the outer products of the
    tasks. The rule exhaustive tries the outer products of each task in turn, as in the authors' code.
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG", "GNs", "GNu"})
    superposes: ClassVar[bool] = True

    weights: Literal["trained", "random"] = "trained"
    weight_learning_rate: float = limited(1e-4, most=MOST_RATE)

    def __post_init__(self) -> None:
        check_limits(self)
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
        """Returns the shared weights. Reads trained weights from the state of the first task, `states[0]`."""
        if self.weights == "random":
            return problem.weights
        return load_layer_tensors(states[0], "weights.", problem, problem.layers)

    def learner(self, problem: Problem, states: States) -> BatchELearner:
        return BatchELearner(problem, self._base(problem, states), states)
