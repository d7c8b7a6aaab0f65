"""The contract of continual-learning methods: how a method learns a task, and what it stores of it."""

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
from supsup_core.nets.base import Layer, Net
from supsup_core.nets.weights import draw_weights
from supsup_core.registry import Registry
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint
from supsup_core.training.loop import NUM_POINTS, LossCurve, TrainingRecipe, restore

if TYPE_CHECKING:
    from torch import Tensor


class Dependence(Enum):
    """Which earlier tasks the learning of a task builds on; decides which tasks can be trained at the same time."""

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
    """What is the same for all tasks of one run. The frozen weights are drawn at their first use."""

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
"""The states of some tasks, as in Learned.state."""

SHARED = "shared."
"""Prefix of the tensors in a task's state that replace those of the previous task."""


@dataclass(frozen=True)
class Learned:
    """The result of learning one task.

    `state`: the tensors by name, all that is stored of the task and all that its learner needs. After n tasks a method
    stores the states of all of them; of the tensors whose name begins with SHARED only the last task's.
    """

    state: Mapping[str, Tensor]
    curve: LossCurve = field(default_factory=lambda: LossCurve([], []))


class Trainee(ABC):
    """A mask in training: it may stop after any batch and resume from its state, on any worker, to the same bits."""

    @abstractmethod
    def train(self, task: Task, order: Tensor, num_points: int = NUM_POINTS) -> LossCurve:
        """Train on batches of a task: order (batches, batch_size) holds indices of its training images."""

    @property
    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """The live tensors that an exact resume needs, by name, those of the optimiser included."""

    @abstractmethod
    def learned(self) -> dict[str, Tensor]:
        """The tensors that a learner needs, as in Learned.state."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Resume from a stored `state`. CorruptError when its tensors do not fit this trainee's."""
        restore(self.state, state)


class ChecksProblem(ABC):
    """A method that cannot learn every problem."""

    @abstractmethod
    def check_problem(self, layers: Sequence[Layer], num_labels: int, num_tasks: int) -> None:
        """Raise InputError when the method cannot learn with these layers, or so many labels and tasks."""


class TrainsInPieces(ABC):
    """A method whose training of a mask can stop after any batch and resume, as scenario NNs needs."""

    @abstractmethod
    def trainee(self, problem: Problem, index: int) -> Trainee:
        """Mask `index` before its training. Its `learned()` holds the packed bits as `mask` (masks.codec)."""


class StacksTasks(ABC):
    """A method that can train several tasks in the same batch of matrix products."""

    @property
    @abstractmethod
    def can_stack(self) -> bool:
        """Whether its fields allow it; only for independent tasks."""

    @abstractmethod
    def learn_stacked(
        self, problem: Problem, indices: Sequence[int], tasks: Sequence[Task], keep: Checkpoint
    ) -> list[Learned]:
        """Learn the tasks together: the result of `learn` for each, within float tolerance."""


class HasMemory(ABC):
    """A method whose learner recalls masks from an associative memory (learners.RecallingLearner)."""

    @property
    @abstractmethod
    def memory_batch(self) -> int:
        """The smallest number of images that a mask is recalled from."""


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A way to learn tasks one after the other. Subclasses are final; their fields are their config.

    What only some methods can do is in ABCs of their own, which a method derives from too: ChecksProblem,
    TrainsInPieces, StacksTasks, HasMemory.
    """

    scenarios: ClassVar[frozenset[str]]
    """The names of the scenarios that it can do."""
    superposes: ClassVar[bool]
    """Whether its learner is a SuperposingLearner, which one_shot and binary inference need."""

    @property
    @abstractmethod
    def dependence(self) -> Dependence:
        """Which earlier tasks the learning of a task builds on."""

    @abstractmethod
    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        """Learn task `index`. A pure function of its arguments.

        parents: the states of the tasks `dependence.parents(index)`, in that order. keep: where checkpoints of a long
        training are stored; it does not change the result.
        """

    @abstractmethod
    def learner(self, problem: Problem, states: States) -> Learner:
        """A learner of tasks 0..len(states)-1 from their stored states."""

    def check(self, layers: Sequence[Layer], num_labels: int, num_tasks: int) -> None:
        """Raise InputError when the method cannot learn with these layers, or so many labels and tasks."""
        if isinstance(self, ChecksProblem):
            self.check_problem(layers, num_labels, num_tasks)

    @property
    def recall_images(self) -> int:
        """The smallest number of images that its learner's `recall` takes; 0 for a method without a memory."""
        return self.memory_batch if isinstance(self, HasMemory) else 0

    def begin(self, problem: Problem, index: int) -> Trainee:
        """Mask `index` before its training, for scenario NNs. InputError unless the method TrainsInPieces."""
        if not isinstance(self, TrainsInPieces):
            raise InputError("scenario: this method learns a task in one piece, so it cannot do NNs; use method supsup")
        return self.trainee(problem, index)

    @property
    def stacks(self) -> bool:
        """Whether `learn_together` can learn several tasks at once."""
        return isinstance(self, StacksTasks) and self.can_stack

    def learn_together(
        self, problem: Problem, indices: Sequence[int], tasks: Sequence[Task], keep: Checkpoint = NOWHERE
    ) -> list[Learned]:
        """Learn several tasks at once: the result of `learn` for each, within float tolerance.

        It uses an accelerator that one small net would leave idle. InputError unless `stacks`.
        """
        if not isinstance(self, StacksTasks):
            raise InputError("this method learns one task at a time; set resources.tasks_at_once=1")
        if not self.can_stack:
            raise InputError("this method builds on earlier tasks; set resources.tasks_at_once=1")
        return self.learn_stacked(problem, indices, tasks, keep)


METHODS: Registry[type[Method]] = Registry("method")
