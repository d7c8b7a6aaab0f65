"""Separate Heads: all tasks share one fixed trunk (all layers but the last), and each task trains a last layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from supsup_core.errors import InputError
from supsup_core.field_limits import MOST_RATE, check_limits, limited
from supsup_core.methods.base import METHODS, Dependence, Learned, Method, Problem, States
from supsup_core.methods.baselines.bounds import heads_learner
from supsup_core.methods.fitting import dense, fit, fresh_head, fresh_weights
from supsup_core.methods.layer_tensors import load_layer_tensors, name_layer_tensors
from supsup_core.methods.learners import Learner
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint
from supsup_core.training.parametrizations import Dense, Fixed

if TYPE_CHECKING:
    from torch import Tensor


@final
@METHODS.register("separate_heads")
@dataclass(frozen=True, kw_only=True)
class SeparateHeads(Method):
    """Each task trains a separate last layer (head) on one shared trunk.

    `trunk`: `trained` trains the trunk on the first task, together with the first head, and then fixes it. `random`
    uses the frozen random weights (the paper's variant Random W). `trunk_learning_rate`: the learning rate of the first
    task, for trunk and head; None means `training.learning_rate`.
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG"})
    superposes: ClassVar[bool] = False
    trains_layers: ClassVar[bool] = True

    trunk: Literal["trained", "random"] = "trained"
    trunk_learning_rate: float | None = limited(None, most=MOST_RATE)

    def __post_init__(self) -> None:
        check_limits(self)
        rate = self.trunk_learning_rate
        if rate is not None and self.trunk == "random":
            raise InputError(
                "trunk_learning_rate: has no effect, because a random trunk is not trained; remove this key"
            )
        if rate is not None and not rate > 0:
            raise InputError(f"trunk_learning_rate: must be positive, not {rate}")

    @property
    def dependence(self) -> Dependence:
        return Dependence.INDEPENDENT if self.trunk == "random" else Dependence.AFTER_FIRST

    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        layers = problem.layers
        head = fresh_head(problem, index)
        stored = name_layer_tensors("head.", layers[-1:], head)
        if self.trunk == "trained" and index == 0:
            trunk = fresh_weights(problem)[:-1]
            rate = self.trunk_learning_rate or problem.recipe.learning_rate
            fitted = fit(problem, index, task, keep, dense(problem, trunk + head), learning_rate=rate)
            return fitted.learned({**stored, **name_layer_tensors("trunk.", layers[:-1], trunk)})
        fixed = [Fixed(weight) for weight in self._trunk(problem, parents)]
        return fit(problem, index, task, keep, [*fixed, *(Dense(weight) for weight in head)]).learned(stored)

    def _trunk(self, problem: Problem, states: States) -> list[Tensor]:
        """Returns the trunk's weights. Reads a trained trunk from the state of the first task, `states[0]`."""
        if self.trunk == "random":
            return problem.weights[:-1]
        return load_layer_tensors(states[0], "trunk.", problem, problem.layers[:-1])

    def learner(self, problem: Problem, states: States) -> Learner:
        return heads_learner(problem, self._trunk(problem, states), states)
