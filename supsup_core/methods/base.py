"""The interface of continual-learning methods: how a method learns a task, and which tensors it stores."""

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
    """Which tasks must be learned before a task: none, the first task, or the previous task.

    Independent tasks can be trained in parallel.
    """

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
    """The settings that all tasks of one run share. `weights` draws the frozen weights when it is first read."""

    net: Net
    input_shape: tuple[int, ...]
    num_labels: int
    recipe: TrainingRecipe
    seed: int
    device: str = "cpu"

    @property
    def weight_seed(self) -> int:
        """The seed from which the frozen weights are drawn."""
        return self.seed if self.net.weight_seed is None else self.net.weight_seed

    def order_seed(self, task: int) -> int:
        """The seed for the order of a task's training images.

        In scenario NNs, the seed of a task is the same for every mask.
        """
        return seeding.child_seed(self.seed, "batches", task)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The net's layers for images of `input_shape`."""
        return self.net.layers(self.input_shape)

    @cached_property
    def weights(self) -> list[Tensor]:
        """The frozen random weights, one tensor for each layer, drawn on the CPU and then moved to `device`."""
        how = self.net.initial_weights or "signed_kaiming"
        return [weight.to(self.device) for weight in draw_weights(self.layers, self.weight_seed, how)]


States: TypeAlias = "Sequence[Mapping[str, Tensor]]"
"""The tensors that a method has stored for several tasks: one `Learned.state` for each task."""

SHARED = "shared."
"""Prefix of the names of tensors that all tasks share. Each task stores new values for these tensors, so a learner
reads only the values of the last task."""


@dataclass(frozen=True)
class Learned:
    """The result of learning one task.

    `state`: the stored tensors of the task, by name. A learner for n tasks needs only the states of these n tasks.
    Tensors whose names begin with SHARED are needed from the last task only. `curve`: the loss curve of the training.
    """

    state: Mapping[str, Tensor]
    curve: LossCurve = field(default_factory=lambda: LossCurve([], []))


class Trainee(ABC):
    """A mask in training.

    Training may stop after any batch. Any worker can resume the training from `state`, and the result has the same bits
    as without interruption.
    """

    @abstractmethod
    def train(self, task: Task, order: Tensor, num_points: int = NUM_POINTS) -> LossCurve:
        """Train on batches of a task. Returns the loss curve, with at most `num_points` points.

        order: the indices of the training images of each batch, (batches, batch_size).
        """

    @property
    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """The tensors that an exact resume needs, by name, including the optimiser's state.

        The tensors are not copies: `train` changes them in place.
        """

    @abstractmethod
    def learned(self) -> dict[str, Tensor]:
        """Returns the tensors that a learner needs, by name, in the form of `Learned.state`."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Copy a stored `state` into this trainee. Raises CorruptError if the names or shapes of the tensors differ."""
        restore(self.state, state)


class ChecksProblem(ABC):
    """Interface of a method that cannot learn every problem."""

    @abstractmethod
    def check_problem(self, layers: Sequence[Layer], num_labels: int, num_tasks: int) -> None:
        """Raise InputError if the method cannot learn with these layers, this many labels or this many tasks."""


class TrainsInPieces(ABC):
    """Interface of a method that can stop training a mask after any batch and resume it later.

    Scenario NNs needs a method with this interface.
    """

    @abstractmethod
    def trainee(self, problem: Problem, index: int) -> Trainee:
        """Returns mask `index` as a new, untrained Trainee.

        The trainee's `learned()` contains the mask under the name `mask`, as uint8 bytes in the format of masks.codec.
        """


class StacksTasks(ABC):
    """Interface of a method that can train several tasks at once, in batched matrix products."""

    @property
    @abstractmethod
    def can_stack(self) -> bool:
        """Whether the method's fields allow training several tasks at once.

        Only independent tasks can be trained together.
        """

    @abstractmethod
    def learn_stacked(
        self, problem: Problem, indices: Sequence[int], tasks: Sequence[Task], keep: Checkpoint
    ) -> list[Learned]:
        """Learn several tasks together. Each task's result equals the result of `learn` within float tolerance.

        indices: the numbers of `tasks`. keep: stores checkpoints of all these tasks together.
        """


class HasMemory(ABC):
    """Interface of a method whose learner is a RecallingLearner: it recalls masks from an associative memory."""

    @property
    @abstractmethod
    def memory_batch(self) -> int:
        """The smallest number of images from which a mask can be recalled."""

    @abstractmethod
    def memory_bytes(self, layers: Sequence[Layer]) -> int:
        """The size in bytes of the associative memory, if it is stored instead of the masks, for a net's layers."""


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A continual-learning method. Subclasses are final.

    The fields of a subclass are the keys under `method` in a sweep file. A method with an optional ability also derives
    from the interface of this ability: ChecksProblem, TrainsInPieces, StacksTasks or HasMemory.
    """

    scenarios: ClassVar[frozenset[str]]
    """The names of the scenarios that the method supports."""
    superposes: ClassVar[bool]
    """Whether the method's learner is a SuperposingLearner. The inference rules one_shot, binary and shortlist need a
    SuperposingLearner."""
    trains_layers: ClassVar[bool] = False
    """Whether the method trains the net's layers directly. Nets with `affine` batch normalisation need this."""
    results_version: ClassVar[int] = 1
    """Developers raise this number if a change of the class alters results. Content keys include a number above 1."""

    @property
    @abstractmethod
    def dependence(self) -> Dependence:
        """Which earlier tasks must be learned before a task."""

    @abstractmethod
    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        """Learn task `index` and return the result. The same method and arguments always give the same result.

        parents: the states of the tasks `dependence.parents(index)`, in that order. keep: stores checkpoints of a long
        training, which do not change the result.
        """

    @abstractmethod
    def learner(self, problem: Problem, states: States) -> Learner:
        """Returns a learner for tasks 0..len(states)-1, built from their stored states."""

    def check(self, layers: Sequence[Layer], num_labels: int, num_tasks: int) -> None:
        """Raise InputError if the method cannot learn with these layers, this many labels or this many tasks."""
        if any(layer.is_norm for layer in layers) and not self.trains_layers:
            raise InputError(
                "name: this method does not train the scale and shift of a batch normalisation; set net.affine=false"
            )
        if isinstance(self, ChecksProblem):
            self.check_problem(layers, num_labels, num_tasks)

    @property
    def recall_images(self) -> int:
        """The smallest number of images from which the learner can recall a mask; 0 for a method without a memory."""
        return self.memory_batch if isinstance(self, HasMemory) else 0

    def begin(self, problem: Problem, index: int) -> Trainee:
        """Returns mask `index` as a new, untrained Trainee, for scenario NNs.

        Raises InputError unless the method is a TrainsInPieces.
        """
        if not isinstance(self, TrainsInPieces):
            raise InputError(
                "scenario: this method cannot interrupt the training of a task, so it does not support NNs; "
                "use method supsup"
            )
        return self.trainee(problem, index)

    @property
    def stacks(self) -> bool:
        """Whether `learn_together` can learn several tasks at once."""
        return isinstance(self, StacksTasks) and self.can_stack

    def learn_together(
        self, problem: Problem, indices: Sequence[int], tasks: Sequence[Task], keep: Checkpoint = NOWHERE
    ) -> list[Learned]:
        """Learn several tasks at once. Each task's result equals the result of `learn` within float tolerance.

        indices: the numbers of `tasks`. Training one small net leaves a GPU mostly idle, so training several nets at
        once is faster. Raises InputError unless `stacks` is True.
        """
        if not isinstance(self, StacksTasks):
            raise InputError("this method learns one task at a time; set resources.tasks_at_once=1")
        if not self.can_stack:
            raise InputError("this method builds on earlier tasks; set resources.tasks_at_once=1")
        return self.learn_stacked(problem, indices, tasks, keep)


METHODS: Registry[type[Method]] = Registry("method")
