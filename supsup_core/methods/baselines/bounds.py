"""What the other methods lie between: a net for each task, and one net for all without any protection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from supsup_core.methods.base import METHODS, SHARED, Dependence, Learned, Method, Problem, States
from supsup_core.methods.fitting import dense, fit, fresh_head, fresh_weights
from supsup_core.methods.layer_tensors import load_layer_tensors, name_layer_tensors
from supsup_core.methods.learners import Learner
from supsup_core.methods.weights_learner import WeightsLearner
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint

if TYPE_CHECKING:
    from torch import Tensor


class OwnWeightsLearner(WeightsLearner):
    """Every task has all weights of its own."""

    def __init__(self, problem: Problem, states: States) -> None:
        super().__init__(problem, states)
        self._all = [load_layer_tensors(state, "weights.", problem, problem.layers) for state in states]

    def weights(self, mask: int) -> list[Tensor]:
        return self._all[mask]


@METHODS.register("upper_bound")
@dataclass(frozen=True, kw_only=True)
class UpperBound(Method):
    """One network a task, all its weights trained from a fresh draw: what the paper calls the upper bound.

    No task helps or harms another, at the price of a whole network for each.
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG"})
    superposes: ClassVar[bool] = False

    @property
    def dependence(self) -> Dependence:
        return Dependence.INDEPENDENT

    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        weights = fresh_weights(problem, index)
        fitted = fit(problem, index, task, keep, dense(problem, weights))
        return fitted.learned(name_layer_tensors("weights.", problem.layers, weights))

    def learner(self, problem: Problem, states: States) -> Learner:
        return OwnWeightsLearner(problem, states)


class HeadsLearner(WeightsLearner):
    """One trunk, all layers but the last, and a last layer for each task."""

    def __init__(self, problem: Problem, trunk: Sequence[Tensor], states: States) -> None:
        super().__init__(problem, states)
        self._trunk = list(trunk)
        self._heads = [load_layer_tensors(state, "head.", problem, problem.layers[-1:]) for state in states]

    def weights(self, mask: int) -> list[Tensor]:
        return self._trunk + self._heads[mask]


class LastWeightsLearner(WeightsLearner):
    """All tasks have the weights that the last of them left."""

    def __init__(self, problem: Problem, states: States) -> None:
        super().__init__(problem, states)
        self._shared = load_layer_tensors(states[-1], SHARED, problem, problem.layers)

    def weights(self, mask: int) -> list[Tensor]:
        return self._shared


@METHODS.register("lower_bound")
@dataclass(frozen=True, kw_only=True)
class LowerBound(Method):
    """One trunk trained throughout, with nothing that keeps what it knew, and a head for each task of its `own`, or
    one that is `shared` by all and trained throughout too: as the published figures for permutations have it."""

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG"})
    superposes: ClassVar[bool] = False

    head: Literal["own", "shared"] = "own"

    @property
    def dependence(self) -> Dependence:
        return Dependence.SEQUENTIAL

    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        layers = problem.layers if self.head == "shared" else problem.layers[:-1]
        shared = (
            [tensor.clone() for tensor in load_layer_tensors(parents[0], SHARED, problem, layers)]
            if parents
            else fresh_weights(problem)[: len(layers)]
        )
        own = [] if self.head == "shared" else fresh_head(problem, index)
        fitted = fit(problem, index, task, keep, dense(problem, shared + own))
        return fitted.learned(
            {
                **name_layer_tensors(SHARED, layers, shared),
                **name_layer_tensors("head.", problem.layers[len(layers) :], own),
            }
        )

    def learner(self, problem: Problem, states: States) -> Learner:
        if self.head == "shared":
            return LastWeightsLearner(problem, states)
        return HeadsLearner(problem, load_layer_tensors(states[-1], SHARED, problem, problem.layers[:-1]), states)
