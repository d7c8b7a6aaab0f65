"""What a continual-learning method is: how it learns a task, and what it can answer afterwards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from supsup_core import seeding
from supsup_core.errors import InputError
from supsup_core.methods.learners import Learner
from supsup_core.nets.base import Layer, Net, draw_weights
from supsup_core.registry import Registry
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint
from supsup_core.training.loop import NUM_POINTS, LossCurve, TrainingRecipe, restore

if TYPE_CHECKING:
    from torch import Tensor


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
