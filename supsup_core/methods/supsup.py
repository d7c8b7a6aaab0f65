"""SupSup: one mask per task on one frozen random network (paper, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from supsup_core.errors import CorruptError, InputError
from supsup_core.field_limits import MOST_RATE, check_limits, limited
from supsup_core.masks import Each, MaskBank, MaskRule, Threshold, TopK, codec, draw_scores, erdos_renyi_density
from supsup_core.methods.base import (
    METHODS,
    SHARED,
    Dependence,
    Learned,
    Method,
    Problem,
    StacksTasks,
    States,
    Trainee,
    TrainsInPieces,
)
from supsup_core.methods.layer_tensors import load_layer_tensors, name_layer_tensors
from supsup_core.methods.learners import CanGrow, SuperposingLearner
from supsup_core.methods.norm_statistics import measure_norms
from supsup_core.methods.weights_learner import WeightsLearner
from supsup_core.nets.base import Layer, Objective
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint
from supsup_core.training.loop import NUM_POINTS, LossCurve, Step, batch_order, train, train_together
from supsup_core.training.parametrizations import Scored

_AT_ONCE = 16
"""The largest number of decision groups whose gradients are multiplied with the masks in one pass over the masks. The
number equals mask_products.LANES."""
_AT_ONCE_BYTES = 256 << 20
"""The largest size in bytes of the gradients for one pass over the masks. For a large net, the limit in bytes allows
fewer decision groups than _AT_ONCE."""


def _masked(problem: Problem, mask: Sequence[Tensor]) -> list[Tensor]:
    """Returns the frozen weight of each layer, multiplied with the layer's mask."""
    return [w * m.to(w.device) for w, m in zip(problem.weights, mask, strict=True)]


@final
class SupSupLearner(SuperposingLearner, CanGrow):
    """Predicts labels with the frozen net under one mask. The learner can also superpose several masks."""

    def __init__(self, problem: Problem, states: States) -> None:
        self._problem = problem
        bank = self._bank = MaskBank(problem.layers)
        self._single = WeightsLearner(problem, (), lambda mask: _masked(problem, bank.mask(mask)))
        self.weights_of = self._single.weights_of
        self.num_masks, self.num_labels = 0, problem.num_labels
        self.normalises_by_batch = problem.net.normalises_by_batch
        self.add(states)

    def add(self, states: States) -> None:
        for state in states:
            bits, size = codec.decode(state["mask"].numpy().tobytes())
            if size != self._bank.size:
                raise CorruptError(f"a mask of {size} weights does not fit a net with {self._bank.size} weights")
            self._bank.add(bits)
        self._single.add(states)
        self.num_masks += len(states)

    def logits(self, x: Tensor, mask: int) -> Tensor:
        return self._single.logits(x, mask)

    def alpha_gradients(self, x: Tensor, subset: Tensor | None, objective: Objective) -> Tensor:
        problem = self._problem
        mean = _masked(problem, self._bank.mean() if subset is None else self._bank.subset_mean(subset))
        at_once = max(1, min(_AT_ONCE, _AT_ONCE_BYTES // (4 * self._bank.size), len(x)))
        rows = torch.empty(at_once, self._bank.size, device=problem.device)
        products = []
        for decisions in torch.split(x.to(problem.device), at_once):
            found = problem.net.decision_gradients(mean, decisions, objective, problem.num_labels)
            for row, gradients in zip(rows, found, strict=False):  # the last chunk may have fewer groups
                for piece, gradient, weight in zip(self._bank.split(row), gradients, problem.weights, strict=True):
                    torch.mul(gradient, weight, out=piece)
            products.append(self._bank.products(rows[: len(decisions)].cpu(), subset))
        return torch.cat(products)


@final
class ScoreTrainee(Trainee):
    """Trains the scores of one mask. Holds the scores and the optimiser's state."""

    def __init__(self, problem: Problem, scores: Sequence[Tensor], rules: Sequence[MaskRule]) -> None:
        """scores: one tensor for each layer, trained in place. rules: the mask rule of each layer."""
        self.scores = scores
        self._rules = rules
        self._layers = [Scored(w, s, rule) for w, s, rule in zip(problem.weights, scores, rules, strict=True)]
        self._step = Step(self._layers, problem.recipe, problem.net.loss_gradients)

    def train(
        self, task: Task, order: Tensor, num_points: int = NUM_POINTS, checkpoint: Checkpoint = NOWHERE
    ) -> LossCurve:
        return train(task, order, self._step, num_points, checkpoint)

    @property
    def state(self) -> dict[str, Tensor]:
        return self._step.state

    def weights(self) -> list[Tensor]:
        """Returns the weight of each layer under the mask of the current scores."""
        return [layer.weight() for layer in self._layers]

    def masks(self) -> list[Tensor]:
        """Returns the mask of each layer for the current scores, as float32 zeros and ones."""
        return [rule.mask(s, torch.empty_like(s)) for rule, s in zip(self._rules, self.scores, strict=True)]

    def learned(self) -> dict[str, Tensor]:
        bits = np.concatenate([mask.flatten().bool().cpu().numpy() for mask in self.masks()])
        blob = codec.encode(codec.pack(bits), bits.size, [scores.numel() for scores in self.scores])
        return {"mask": torch.frombuffer(bytearray(blob), dtype=torch.uint8)}


@final
@METHODS.register("supsup")
@dataclass(frozen=True, kw_only=True)
class SupSup(Method, TrainsInPieces, StacksTasks):
    """Learns one binary mask for each task by edge-popup, over frozen random weights.

    `mask`: `threshold` keeps the weights with scores >= 0. `top_k` keeps a fixed share of each layer's weights: those
    with the largest |score| (`rank: abs`) or the largest score (`rank: raw`). The share is `density`. If `erdos_renyi`
    gives a budget b, the share is instead min(0.5, b * (out + in) / number of weights). Small layers then keep a larger
    share.

    `transfer` sets the initial scores of a task. `none`: a new random draw. `masks`: a new random draw, rearranged by
    the earlier masks (`sort_like`; paper, section 4.1). Weights that more earlier masks kept get the larger scores, or
    the larger |scores| if |score| ranks the weights. `scores`: the running mean of the earlier tasks' scores (authors'
    code).
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG", "GNs", "GNu", "NNs"})
    superposes: ClassVar[bool] = True

    mask: Literal["threshold", "top_k"] = "threshold"
    density: float = 0.5
    rank: Literal["abs", "raw"] = "abs"
    erdos_renyi: float | None = limited(None, most=MOST_RATE)
    transfer: Literal["none", "masks", "scores"] = "none"

    def __post_init__(self) -> None:
        check_limits(self)
        rule = TopK(self.density, self.rank == "abs")
        if self.mask == "threshold" and (rule != TopK(0.5, True) or self.erdos_renyi is not None):
            raise InputError(
                "mask: density, rank and erdos_renyi need mask top_k; set method.mask=top_k, or remove these keys"
            )
        if self.erdos_renyi is not None and not self.erdos_renyi > 0:
            raise InputError(f"erdos_renyi: must be positive, not {self.erdos_renyi}")
        if self.erdos_renyi is not None and self.density != 0.5:
            raise InputError("density: cannot be combined with erdos_renyi; remove one of the two")

    @property
    def dependence(self) -> Dependence:
        return Dependence.INDEPENDENT if self.transfer == "none" else Dependence.SEQUENTIAL

    def mask_rules(self, layers: Sequence[Layer]) -> list[MaskRule]:
        """Returns the mask rule of each layer, in the order of `layers`."""
        if self.mask == "threshold":
            return [Threshold() for _ in layers]
        shares = [
            self.density if self.erdos_renyi is None else erdos_renyi_density(self.erdos_renyi, layer.shape)
            for layer in layers
        ]
        return [TopK(share, self.rank == "abs") for share in shares]

    def trainee(self, problem: Problem, index: int) -> ScoreTrainee:
        if self.transfer != "none":
            raise InputError(
                "transfer: needs the order of the tasks, which is unknown in NNs; set method.transfer=none"
            )
        return self._trainee_after(problem, index, {})

    def _trainee_after(self, problem: Problem, index: int, before: Mapping[str, Tensor]) -> ScoreTrainee:
        """Returns a new trainee for task `index`, with its initial scores.

        before: the state of the previous task, or {} if no scores or masks are transferred.
        """
        scores = draw_scores(problem.layers, problem.seed, index)
        if before:
            totals = load_layer_tensors(before, SHARED, problem, problem.layers)
            means = [total.float().cpu() / index for total in totals]
            if self.transfer == "scores":
                scores = means
            else:
                by_size = self.mask == "top_k" and self.rank == "abs"
                scores = [sort_like(s, mean, by_size) for s, mean in zip(scores, means, strict=True)]
        return ScoreTrainee(problem, [s.to(problem.device) for s in scores], self.mask_rules(problem.layers))

    @property
    def can_stack(self) -> bool:
        return self.transfer == "none"

    def learn_stacked(
        self, problem: Problem, indices: Sequence[int], tasks: Sequence[Task], keep: Checkpoint
    ) -> list[Learned]:
        drawn = [draw_scores(problem.layers, problem.seed, index) for index in indices]
        scores = [torch.stack(own).to(problem.device) for own in zip(*drawn, strict=True)]
        rules = self.mask_rules(problem.layers)
        layers = [Scored(w, s, Each(rule)) for w, s, rule in zip(problem.weights, scores, rules, strict=True)]
        pairs = list(zip(indices, tasks, strict=True))
        orders = torch.stack([batch_order(problem.recipe, task, problem.order_seed(index)) for index, task in pairs])
        step = Step(layers, problem.recipe, problem.net.loss_gradients_together)
        curves = train_together(tasks, orders, step, checkpoint=keep)
        found = []
        for place, ((index, task), curve) in enumerate(zip(pairs, curves, strict=True)):
            own = ScoreTrainee(problem, [layer[place] for layer in scores], rules)
            found.append(Learned(own.learned() | measure_norms(problem, index, task, own.weights()), curve))
        return found

    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        before = parents[0] if parents else {}
        trainee = self._trainee_after(problem, index, before)
        order = batch_order(problem.recipe, task, problem.order_seed(index))
        curve = trainee.train(task, order, checkpoint=keep)
        state = trainee.learned() | measure_norms(problem, index, task, trainee.weights())
        if self.transfer != "none":
            totals = [mask.int() for mask in trainee.masks()] if self.transfer == "masks" else list(trainee.scores)
            if before:
                earlier = load_layer_tensors(before, SHARED, problem, problem.layers)
                totals = [total + own for total, own in zip(earlier, totals, strict=True)]
            state |= name_layer_tensors(SHARED, problem.layers, totals)
        return Learned(state, curve)

    def learner(self, problem: Problem, states: States) -> SupSupLearner:
        return SupSupLearner(problem, states)


def sort_like(drawn: Tensor, mean: Tensor, by_size: bool) -> Tensor:
    """Returns the values of `drawn`, rearranged so that a position with a larger `mean` has a larger value.

    Positions with equal means keep their relative order in `drawn`. by_size: rearrange only the absolute values. With
    `by_size`, each position keeps the sign that it has in `drawn`.
    """
    values = (drawn.abs() if by_size else drawn).flatten()
    own = torch.sort(values, stable=True).indices
    order = own[torch.sort(mean.flatten()[own], stable=True).indices]
    found = torch.empty_like(values)
    found[order] = values[own]
    return (found.view(drawn.shape) * drawn.sign()) if by_size else found.view(drawn.shape)
