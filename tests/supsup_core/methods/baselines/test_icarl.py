"""iCaRL: exemplars and herding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from supsup_core.datasets import Dataset
from supsup_core.errors import InputError
from supsup_core.evaluation.protocol import Inference, evaluate
from supsup_core.inference import OBJECTIVES
from supsup_core.methods import METHODS, Problem
from supsup_core.methods.baselines.icarl import herd
from supsup_core.nets import NETS
from supsup_core.scenarios import scenario
from supsup_core.tasks import BENCHMARKS, Augments, Task
from supsup_core.training.loop import TrainingRecipe
from tests.supsup_core.methods.learning import learned


def test_herding_keeps_the_running_mean_near_the_mean() -> None:
    rows = F.normalize(torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) + 1, dim=1)
    chosen = herd(rows, 12)
    assert len(set(chosen.tolist())) == 12
    away = float((rows[chosen].mean(0) - rows.mean(0)).norm())
    assert away < float((rows[:12].mean(0) - rows.mean(0)).norm()) / 3
    assert torch.equal(herd(rows, 5), chosen[:5])
    assert sorted(herd(rows, 99).tolist()) == list(range(60))


def test_icarl_stores_as_many_exemplars_as_its_budget_and_classifies_all_classes(digits: Dataset) -> None:
    recipe = TrainingRecipe(num_batches=300, learning_rate=1e-3)
    problem = Problem(NETS["lenet_300_100"](num_outputs=10), (64,), 10, recipe, seed=0)
    method = METHODS["icarl"](num_exemplars=200)
    states = learned(method, problem, digits, 3)
    for count, state in enumerate(states, start=1):
        assert state["shared.classes"].unique().tolist() == list(range(10 * count))
        assert len(state["shared.classes"]) == 10 * count * (200 // (10 * count))
    inference = Inference(rule="exhaustive", objective="max_logit", decision_group=1, strict_images=0)
    benchmark = BENCHMARKS["permuted"](base="digits")
    learner = method.learner(problem, states)
    right = 0
    for index in range(3):
        found = evaluate(learner, benchmark.task(index, digits, 0), index, scenario("GNu"), inference, 0)["paper"]
        right += int(found.correct[found.chosen == index].sum())
    assert right / (3 * 360) > 0.5
    with pytest.raises(InputError, match="num_exemplars"):
        METHODS["icarl"](num_exemplars=15).learn(problem, 1, benchmark.task(1, digits, 0), states[:1])
    with pytest.raises(InputError, match="fewer than the 20 classes"):
        METHODS["icarl"](num_exemplars=15).check(problem.layers, 10, 2)
    kept = BENCHMARKS["split"](base="digits", labels="base").task(1, digits, 0)
    with pytest.raises(InputError, match="labels=own"):
        method.learn(problem, 0, kept, [])


def test_icarl_stores_images_without_augmentation_and_augments_them_in_rehearsal(digits: Dataset) -> None:
    class Mirrored(Task, Augments):
        """The digits, whose augmentation mirrors every training image."""

        def __init__(self) -> None:
            self._task = BENCHMARKS["permuted"](base="digits").task(0, digits, 0)
            self.num_train, self.num_test = self._task.num_train, self._task.num_test

        def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
            x, y = self.plain_train_batch(indices)
            return self.augment(x, indices), y

        def test_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
            return self._task.test_batch(indices)

        def unaugmented_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
            return self._task.train_batch(indices)

        def augment_images(self, x: Tensor, indices: Tensor) -> Tensor:
            seen.append(len(x))
            return x.flip(1)

    seen: list[int] = []
    recipe = TrainingRecipe(num_batches=6, batch_size=50)
    problem = Problem(NETS["lenet_300_100"](num_outputs=10), (64,), 10, recipe, seed=0)
    task = Mirrored()
    first = METHODS["icarl"](num_exemplars=40).learn(problem, 0, task, []).state
    everything = {row.tobytes() for row in task.plain_train_batch(torch.arange(task.num_train))[0].numpy()}
    assert all(row.numpy().tobytes() in everything for row in first["shared.exemplars"])
    METHODS["icarl"](num_exemplars=40).learn(problem, 1, task, [first])
    assert seen == [50] * 12


def test_objectives_accept_icarls_logits() -> None:
    logits = -torch.rand(2, 3, 10)
    for name in ("entropy", "max_logit", "energy"):
        assert OBJECTIVES[name](logits, 10).shape == (2,)
