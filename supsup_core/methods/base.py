"""What a continual-learning method is: how it learns a task, and what it can answer afterwards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.errors import CorruptError, InputError
from supsup_core.nets.base import Layer, Net, Objective, draw_signed, draw_uniform, draw_weights
from supsup_core.registry import Registry
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint
from supsup_core.training.loop import (
    NUM_POINTS,
    LossCurve,
    LossGradients,
    Step,
    TrainingRecipe,
    batch_order,
    restore,
    train,
)
from supsup_core.training.parametrizations import Dense, Fixed, Parametrization


class Dependence(Enum):
    """What learning task i needs of the tasks before it; decides how tasks are shared out."""

    INDEPENDENT = "independent"
    AFTER_FIRST = "after_first"
    SEQUENTIAL = "sequential"

    def parents(self, task: int) -> list[int]:
        """The tasks that must have been learned before `task`."""
        if self is Dependence.AFTER_FIRST:
            return [0] if task else []
        return [task - 1] if self is Dependence.SEQUENTIAL and task else []


@dataclass(frozen=True)
class Problem:
    """All that is fixed over the tasks of one run. The frozen weights are drawn when first asked for."""

    net: Net
    input_shape: tuple[int, ...]
    num_labels: int
    recipe: TrainingRecipe
    seed: int
    device: str = "cpu"

    @property
    def weight_seed(self) -> int:
        """The seed that W is drawn from."""
        return self.seed if self.net.weight_seed is None else self.net.weight_seed

    def order_seed(self, task: int) -> int:
        """The seed that the order of a task's training images is drawn from, whichever mask trains on them."""
        return seeding.child_seed(self.seed, "batches", task)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The net's layers for this input shape."""
        return self.net.layers(self.input_shape)

    @cached_property
    def weights(self) -> list[Tensor]:
        """The frozen random weights, drawn on the CPU, then moved to the device."""
        return [weight.to(self.device) for weight in draw_weights(self.layers, self.weight_seed)]


States: TypeAlias = "Sequence[Mapping[str, Tensor]]"
"""The states of some tasks, as `Learned` holds them."""

SHARED = "shared."
"""Prefix of those tensors of a task's state that the next task's take the place of."""


@dataclass(frozen=True)
class Learned:
    """What learning one task produced.

    `state`: the tensors that answering needs, and all that is stored of the task. After n tasks a method
    stores all of their tensors, but of those whose name begins with SHARED the last task's alone.
    `curve`: how the loss went.
    """

    state: Mapping[str, Tensor]
    curve: LossCurve = field(default_factory=lambda: LossCurve([], []))


class Trainee(ABC):
    """What one mask learns, while it learns: it may stop after any batch and go on, here or elsewhere, to the
    same bits."""

    @abstractmethod
    def train(self, task: Task, order: Tensor, num_points: int = NUM_POINTS) -> LossCurve:
        """Train on batches of a task: order (batches, batch_size) holds indices of its training images."""

    @property
    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """The live tensors that going on exactly needs, optimiser included, by name."""

    @abstractmethod
    def learned(self) -> dict[str, Tensor]:
        """What answering needs, as in Learned.state."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state` that was kept. CorruptError when it is not one of this trainee."""
        restore(self.state, state)


@dataclass(frozen=True)
class Recalled:
    """What images led to in an associative memory of all masks.

    `labels`: labels (batch,) of images (batch, *shape) under what was recalled, which may be no mask that is stored.
    `distances`: in how many units it differs from each mask, before each step and at the end, (steps + 1, k), int64.
    """

    labels: Callable[[Tensor], Tensor]
    distances: Tensor


class Learner(ABC):
    """Answers for the tasks learned so far; mask i is whatever the method keeps for task i."""

    num_masks: int
    num_labels: int
    normalises_by_batch: bool = False
    """Whether an answer depends on the other images it is asked for with (Net.normalises_by_batch)."""
    recall_images: int = 0
    """How many images `recall` takes at least."""

    @abstractmethod
    def logits(self, x: Tensor, mask: int) -> Tensor:
        """Logits (batch, num_outputs) of images x (batch, *shape) with one mask."""

    def alpha_gradients(self, x: Tensor, subset: Tensor | None, objective: Objective) -> Tensor:
        """d objective / d alpha_i at equal alpha, for D decisions: x (D, images, *shape) to (D, k).

        `subset` (int64 mask numbers) superposes only those, and the answer has one column for each.
        InputError when the method has no superposition; such methods set `Method.superposes` to False.
        """
        raise InputError("this method cannot superpose its masks; use inference.rule=exhaustive")

    def recall(self, x: Tensor, objective: Objective) -> Recalled:
        """Where images x (images, *shape) of one task lead to in an associative memory of all masks.

        InputError when the method has no such memory; the others set `Method.recall_images`.
        """
        raise InputError("this method keeps its masks in no Hopfield network; use another inference.rule")

    def predict(self, x: Tensor, mask: int) -> Tensor:
        """Labels (batch,) among the real outputs."""
        return self.logits(x, mask)[:, : self.num_labels].argmax(1)


_IMAGES_AT_ONCE = 1024
"""Images of channels that go through a net together; flat ones need no bound."""


class WeightsLearner(Learner):
    """A learner whose answer for a task is the net's, with weights and statistics of the task's own."""

    def __init__(self, problem: Problem, states: States) -> None:
        self._problem = problem
        self._norms = [norms_in(state, problem) for state in states]
        self._last: tuple[int, list[Tensor]] | None = None
        self.num_masks = len(states)
        self.num_labels = problem.num_labels
        self.normalises_by_batch = problem.net.normalises_by_batch

    @abstractmethod
    def weights(self, mask: int) -> list[Tensor]:
        """The net's weights for one task, on the problem's device."""

    def logits(self, x: Tensor, mask: int) -> Tensor:
        if self._last is None or self._last[0] != mask:
            self._last = (mask, [*self.weights(mask), *self._norms[mask]])
        weights = self._last[1]
        parts = torch.split(x, _IMAGES_AT_ONCE if x.dim() == 4 else max(1, len(x)))
        return torch.cat([self._problem.net.forward(weights, p.to(self._problem.device)).to(x.device) for p in parts])


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A way to learn tasks one after the other. Subclasses are final; their fields are their config."""

    scenarios: ClassVar[frozenset[str]]
    """The scenarios it can do."""
    superposes: ClassVar[bool]
    """Whether its learner has alpha_gradients, which one_shot and binary inference need."""

    @property
    def recall_images(self) -> int:
        """How many images its learner's `recall` takes at least, which hopfield inference needs; 0: it has none."""
        return 0

    def check(self, layers: Sequence[Layer], num_labels: int, num_tasks: int) -> None:  # noqa: B027 - most take all
        """Raise InputError where this method cannot do with these layers, or so many labels and tasks."""

    @property
    @abstractmethod
    def dependence(self) -> Dependence:
        """What learning a task needs of the tasks before it."""

    def begin(self, problem: Problem, index: int) -> Trainee:
        """Mask `index` before its training; for methods that can learn in pieces, which NNs needs.

        What such a mask has learned must hold its packed bits as `mask` (masks.codec).
        """
        raise InputError("this method learns a task in one piece, and so cannot do NNs")

    @abstractmethod
    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        """Learn task `index`. A pure function of its arguments.

        `parents`: the states of `dependence.parents(index)`, in that order. `keep`: where training that takes long
        may be kept while it is under way; it changes nothing of what is learned.
        """

    def learn_together(
        self, problem: Problem, indices: Sequence[int], tasks: Sequence[Task], keep: Checkpoint = NOWHERE
    ) -> list[Learned]:
        """Learn some tasks at once: what `learn` gives of each, within float tolerance.

        For methods whose `stacks` is True; an accelerator that one small net leaves idle trains many as fast.
        """
        raise InputError("this method learns one task at a time; set resources.tasks_at_once=1")

    @property
    def stacks(self) -> bool:
        """Whether `learn_together` can do it; only for tasks that stand alone."""
        return False

    @abstractmethod
    def learner(self, problem: Problem, states: States) -> Learner:
        """A learner of tasks 0..len(states)-1 from what was stored of them."""


METHODS: Registry[type[Method]] = Registry("method")


def fresh_weights(problem: Problem, index: int = 0) -> list[Tensor]:
    """Weights that are to be trained, one tensor a layer, on the problem's device, as the net starts them."""
    return _fresh(problem, problem.layers, "dense", index)


def fresh_head(problem: Problem, index: int) -> list[Tensor]:
    """The last layer of task `index` before its training."""
    return _fresh(problem, problem.layers[-1:], "head", index)


def _fresh(problem: Problem, layers: Sequence[Layer], purpose: str, index: int) -> list[Tensor]:
    draw = draw_signed if problem.net.trained_from_signs else draw_uniform
    drawn = zip(layers, draw(layers, problem.seed, purpose, index), strict=True)
    return [(torch.ones_like(w) if layer.is_gate else w).to(problem.device) for layer, w in drawn]


def dense(problem: Problem, weights: Sequence[Tensor]) -> list[Parametrization]:
    """The net's weights to be trained as they are, in the order of its layers; its gates stay open."""
    return [Fixed(w) if layer.is_gate else Dense(w) for layer, w in zip(problem.layers, weights, strict=True)]


@dataclass(frozen=True)
class Fitted:
    """How training went, and the net's statistics at its end, to be put into the task's state."""

    curve: LossCurve
    norms: dict[str, Tensor]

    def learned(self, state: Mapping[str, Tensor]) -> Learned:
        """The task as learned, its statistics beside the rest of its state."""
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
    """Train on task `index` by the problem's recipe, with `changes` to its fields; by the net's own `loss_gradients`,
    or what takes their place."""
    recipe = replace(problem.recipe, **changes)
    order = batch_order(recipe, task, problem.order_seed(index))
    curve = train(task, order, Step(layers, recipe, loss_gradients or problem.net.loss_gradients), checkpoint=keep)
    return Fitted(curve, norms_of(problem, index, task, [layer.weight() for layer in layers]))


NORM_BATCHES = 50
"""Batches that the statistics of batch normalisation are taken over, when a task has been learned."""


def norms_of(
    problem: Problem, index: int, task: Task, weights: Sequence[Tensor], prefix: str = ""
) -> dict[str, Tensor]:
    """The statistics of a net's batch normalisations on a task, as a state keeps them; {} where it has none.

    The mean, over seeded training batches, of each batch's mean and variance at the final weights. Running averages,
    the usual way, are the same but for weights that were still changing while they ran.
    """
    if not problem.net.norm_widths():
        return {}
    recipe = problem.recipe
    child = seeding.child_seed(problem.seed, "norms", index)
    order = seeding.batches(child, task.num_train, min(NORM_BATCHES, recipe.num_batches), recipe.batch_size)
    totals: list[Tensor] = []
    for indices in torch.from_numpy(order):
        found = problem.net.observe(weights, task.train_batch(indices)[0].to(problem.device))
        totals = [total + one for total, one in zip(totals, found, strict=True)] if totals else found
    return {f"{prefix}{_NORM}{number}": _compact(total / len(order)) for number, total in enumerate(totals)}


def _compact(statistics: Tensor) -> Tensor:
    """As float16 where that keeps every one of them to a thousandth, and otherwise as they are."""
    half = statistics.half()
    return half if torch.allclose(half.float(), statistics, rtol=1e-3, atol=0) else statistics


_NORM = "norm."


def norms_in(state: Mapping[str, Tensor], problem: Problem, prefix: str = "") -> list[Tensor]:
    """What `norms_of` put into a state, on the problem's device, in the order that a net takes it."""
    widths = [width for width in problem.net.norm_widths() for _ in range(2)]
    found = [state.get(f"{prefix}{_NORM}{number}") for number in range(len(widths))]
    kept = [tensor.to(problem.device).float() for tensor in found if tensor is not None]
    if [len(tensor) for tensor in kept] != widths:
        raise CorruptError("what is stored of a task has no statistics that fit the net")
    return kept


def named(prefix: str, layers: Sequence[Layer], tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Tensors of a state, one a layer: {prefix + the layer's name: tensor}."""
    return {f"{prefix}{layer.name}": tensor for layer, tensor in zip(layers, tensors, strict=True)}


def taken(state: Mapping[str, Tensor], prefix: str, problem: Problem, layers: Sequence[Layer]) -> list[Tensor]:
    """What `named` put into a state, on the problem's device; CorruptError when it does not fit the layers."""
    found = []
    for layer in layers:
        tensor = state.get(f"{prefix}{layer.name}")
        if tensor is None or tensor.shape != layer.shape:
            raise CorruptError(f"what is stored of a task has no {prefix}{layer.name} of shape {layer.shape}")
        found.append(tensor.to(problem.device))
    return found


@torch.no_grad()
def accuracy(learner: Learner, task: Task, mask: int) -> float:
    """Share of the task's test images that mask `mask` labels rightly."""
    x, y = task.all_test()
    return float((learner.predict(x, mask) == y).double().mean())
