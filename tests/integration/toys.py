"""A small example of every kind of component that a user may add, in one file for a sweep's `imports`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.datasets import Dataset
from supsup_core.inference import OBJECTIVES, RULES, Rule
from supsup_core.methods import METHODS, Dependence, Learned, Learner, Method, Problem, States
from supsup_core.nets import NETS, Layer, Net
from supsup_core.nets.base import Objective
from supsup_core.scenarios import SCENARIOS, Scenario
from supsup_core.tasks import BENCHMARKS, Benchmark, Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint

SCENARIOS.register("toy_scenario")(
    Scenario(name="toy_scenario", given_in_training=True, given_at_inference=False, wrong_task_is_wrong=False)
)


@NETS.register("toy_net")
@dataclass(frozen=True, kw_only=True)
class ToyNet(Net):
    """One linear layer."""

    def layers(self, input_shape: tuple[int, ...]) -> tuple[Layer, ...]:
        return (Layer("only", (self.num_outputs, input_shape[0]), input_shape[0]),)

    def forward(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        return x @ weights[0].t()


class Shifted(Task):
    """A task whose images are the digits with cyclically shifted pixels."""

    def __init__(self, dataset: Dataset, by: int) -> None:
        self._dataset, self._by = dataset, by
        self.num_train, self.num_test = len(dataset.train.labels), len(dataset.test.labels)

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._of(self._dataset.train.pixels[indices]), self._dataset.train.labels[indices]

    def test_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._of(self._dataset.test.pixels[indices]), self._dataset.test.labels[indices]

    def _of(self, pixels: Tensor) -> Tensor:
        return self._dataset.normalise(pixels).flatten(1).roll(self._by, 1)


@BENCHMARKS.register("toy_benchmark")
@dataclass(frozen=True, kw_only=True)
class ToyBenchmark(Benchmark):
    """A benchmark in which task i shifts the pixels cyclically by i times `step`."""

    base: str = "digits"
    step: int = 11

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (64,)

    def task(self, index: int, dataset: Dataset, seed: int) -> Task:
        return Shifted(dataset, index * self.step)


class NearestMeans(Learner):
    """A learner whose logits are minus the squared distances to the class means of a task."""

    def __init__(self, means: Sequence[Tensor], num_labels: int) -> None:
        self._means, self.num_masks, self.num_labels = means, len(means), num_labels

    def logits(self, x: Tensor, mask: int) -> Tensor:
        return -(torch.cdist(x, self._means[mask]) ** 2)


@METHODS.register("toy_method")
@dataclass(frozen=True, kw_only=True)
class ToyMethod(Method):
    """A method that stores the mean image of every class."""

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG", "GNs", "toy_scenario"})
    superposes: ClassVar[bool] = False
    shrinkage: float = 0.0

    @property
    def dependence(self) -> Dependence:
        return Dependence.INDEPENDENT

    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        order = seeding.permutation(seeding.child_seed(problem.seed, "toy", index), task.num_train)
        x, y = task.train_batch(torch.from_numpy(order[:500]))
        means = torch.stack([x[y == label].mean(0) for label in range(problem.num_labels)])
        return Learned({"means": means * (1 - self.shrinkage)})

    def learner(self, problem: Problem, states: States) -> Learner:
        return NearestMeans([state["means"] for state in states], problem.num_labels)


@OBJECTIVES.register("toy_objective")
def margin(logits: Tensor, num_labels: int) -> Tensor:
    """Returns minus the difference between the largest logit and the mean of all logits."""
    real = logits[..., :num_labels]
    return (real.mean(-1) - real.amax(-1)).mean(-1)


@RULES.register("toy_rule")
class ToyRule(Rule):
    """The exhaustive rule, implemented as a user's component."""

    needs_superposition = False

    def choose(self, learner: Learner, x: Tensor, objective: Objective, given: int | None) -> Tensor:
        values = [
            torch.stack([objective(learner.logits(images, mask), learner.num_labels) for images in x])
            for mask in range(learner.num_masks)
        ]
        return torch.stack(values, 1).argmin(1)
