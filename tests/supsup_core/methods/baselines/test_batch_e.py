"""BatchE: inference by rank-one masks."""

from __future__ import annotations

import pytest

from supsup_core.datasets import Dataset
from supsup_core.evaluation.protocol import Inference, evaluate
from supsup_core.methods import METHODS, Problem
from supsup_core.nets import NETS
from supsup_core.scenarios import scenario
from supsup_core.tasks import BENCHMARKS
from supsup_core.training.loop import TrainingRecipe
from tests.supsup_core.methods.learning import TASKS, learned


@pytest.mark.parametrize(("rule", "share"), [("one_shot", 0.4), ("exhaustive", 0.8)])
def test_batch_e_infers_the_task_with_its_rank_one_masks(digits: Dataset, rule: str, share: float) -> None:
    """Task inference is better than chance (a quarter), and much better if each mask is tried."""
    recipe = TrainingRecipe(optimizer="adam", num_batches=300, learning_rate=1e-2)
    problem = Problem(NETS["lenet_300_100"](num_outputs=10), (64,), 10, recipe, seed=0)
    method = METHODS["batch_e"](weight_learning_rate=1e-3)
    learner = method.learner(problem, learned(method, problem, digits))
    benchmark = BENCHMARKS["permuted"](base="digits")
    inference = Inference(rule=rule, images_per_decision=60, decision_group=60, strict_images=0)
    right = total = 0
    for index in range(TASKS):
        found = evaluate(learner, benchmark.task(index, digits, 0), index, scenario("GNu"), inference, 0)["paper"]
        right += int((found.chosen == index).sum())
        total += len(found.chosen)
    assert right / total > share
