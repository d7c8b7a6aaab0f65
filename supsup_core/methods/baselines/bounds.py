"""Upper Bound (one net for each task) and Lower Bound (one net for all tasks, not protected against forgetting)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from supsup_core.methods.base import METHODS, SHARED, Dependence, Learned, Method, Problem, States
from supsup_core.methods.fitting import dense, fit, fresh_head, fresh_weights
from supsup_core.methods.layer_tensors import load_layer_tensors, name_layer_tensors
from supsup_core.methods.learners import Learner
from supsup_core.methods.weights_learner import WeightsLearner
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint

if TYPE_CHECKING:
    from torch import Tensor


def heads_learner(problem: Problem, trunk: Sequence[Tensor], states: States) -> WeightsLearner:
    """Returns a learner with one trunk (all layers but the last) and a separate last layer for each task."""
    heads = [load_layer_tensors(state, "head.", problem, problem.layers[-1:]) for state in states]
    return WeightsLearner(problem, states, lambda mask: [*trunk, *heads[mask]])


@final
@METHODS.register("upper_bound")
@dataclass(frozen=True, kw_only=True)
class UpperBound(Method):
    """The paper's Upper Bound: each task trains all weights of a separate network, from a new random draw.

    Tasks neither help nor harm each other, but the method stores a whole network for each task.
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG"})
    superposes: ClassVar[bool] = False
    trains_layers: ClassVar[bool] = True

    @property
    def dependence(self) -> Dependence:
        return Dependence.INDEPENDENT

    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        weights = fresh_weights(problem, index)
        fitted = fit(problem, index, task, keep, dense(problem, weights))
        return fitted.learned(name_layer_tensors("weights.", problem.layers, weights))

    def learner(self, problem: Problem, states: States) -> Learner:
        weights = [load_layer_tensors(state, "weights.", problem, problem.layers) for state in states]
        return WeightsLearner(problem, states, weights.__getitem__)


@final
@METHODS.register("lower_bound")
@dataclass(frozen=True, kw_only=True)
class LowerBound(Method):
    """The paper's Lower Bound: the tasks train one shared trunk one after another, without protection from forgetting.

    The trunk is all layers but the last. `head`: with `own`, each task trains a separate last layer. With `shared`, the
    tasks also share the last layer. For permuted tasks, the paper does not say which of the two it uses.
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG"})
    superposes: ClassVar[bool] = False
    trains_layers: ClassVar[bool] = True

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
            shared = load_layer_tensors(states[-1], SHARED, problem, problem.layers)
            return WeightsLearner(problem, states, lambda mask: shared)
        return heads_learner(problem, load_layer_tensors(states[-1], SHARED, problem, problem.layers[:-1]), states)
