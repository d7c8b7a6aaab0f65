"""The statistics of batch normalisation that methods store."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from supsup_core.datasets import Dataset, Images
from supsup_core.errors import CorruptError, InputError
from supsup_core.evaluation.protocol import Inference, check, evaluate
from supsup_core.inference import OBJECTIVES
from supsup_core.methods import METHODS, Method, Problem
from supsup_core.methods.norm_statistics import load_norms, measure_norms
from supsup_core.nets import NETS
from supsup_core.scenarios import SCENARIOS, scenario
from supsup_core.tasks.split import SplitTask
from supsup_core.training.loop import TrainingRecipe


@pytest.fixture(scope="module")
def photographs() -> Dataset:
    """A dataset of 3 x 8 x 8 noise images in four classes. Each class is brighter in a different corner."""
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> Images:
        labels = torch.arange(count) % 4
        pixels = torch.randint(0, 120, (count, 3, 8, 8), generator=generator)
        for number, label in enumerate(labels.tolist()):
            row, column = 4 * (label // 2), 4 * (label % 2)
            pixels[number, :, row : row + 4, column : column + 4] += 100
        return Images(pixels.to(torch.uint8), labels)

    return Dataset(part(400), part(100), mean=(0.3, 0.3, 0.3), std=(0.2, 0.2, 0.2))


@pytest.fixture(scope="module")
def problem() -> Problem:
    recipe = TrainingRecipe(optimizer="adam", num_batches=100, batch_size=16, learning_rate=1e-2)
    return Problem(NETS["gem_resnet18"](num_outputs=20, width=4), (3, 8, 8), 2, recipe, seed=0)


def learned(method: Method, problem: Problem, photographs: Dataset) -> list[dict[str, Tensor]]:
    states: list[dict[str, Tensor]] = []
    for index, classes in enumerate(([0, 1], [2, 3])):
        parents = [states[parent] for parent in method.dependence.parents(index)]
        task = SplitTask(photographs, classes, keep_labels=False)
        states.append(dict(method.learn(problem, index, task, parents).state))
    return states


@pytest.mark.parametrize("name", [name for name in METHODS.names() if name not in ("psp", "hop_sup_sup")])
def test_every_method_stores_the_statistics_of_each_task(name: str, problem: Problem, photographs: Dataset) -> None:
    """The answer for an image is the same alone and in a batch."""
    method = METHODS[name](**({"mask_learning_rate": 1e-2} if name == "piggyback" else {}))
    states = learned(method, problem, photographs)
    learner = method.learner(problem, states)
    task = SplitTask(photographs, [2, 3], keep_labels=False)
    x, y = task.all_test()
    logits = learner.logits(x, 1)
    torch.testing.assert_close(learner.logits(x[:1], 1), logits[:1], rtol=1e-3, atol=1e-3)
    assert float((learner.predict(x, 1) == y).double().mean()) > 0.8
    for state in states:
        kept = {key for key in state if "norm." in key}
        assert len(kept) == 2 * len(problem.net.norm_widths())
    if name != "icarl":  # iCaRL stores only the statistics of the last task
        spoilt = {key: tensor for key, tensor in states[1].items() if key != "norm.3"}
        with pytest.raises(CorruptError, match="no statistics that fit"):
            method.learner(problem, [states[0], spoilt])


def test_statistics_are_stored_as_float16_if_that_is_exact_enough(problem: Problem, photographs: Dataset) -> None:
    task = SplitTask(photographs, [0, 1], keep_labels=False)
    weights = problem.weights
    small = measure_norms(problem, 0, task, weights)
    assert {tensor.dtype for tensor in small.values()} == {torch.float16}
    large = measure_norms(problem, 0, task, [weights[0] * 1e4, *weights[1:]])
    assert torch.float32 in {tensor.dtype for tensor in large.values()}
    for kept in (small, large):
        assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in load_norms(kept, problem))


@pytest.mark.parametrize(("name", "words"), [("psp", "fully connected"), ("hop_sup_sup", "needs a net with gates")])
def test_methods_refuse_nets_that_they_cannot_train(name: str, words: str, problem: Problem) -> None:
    with pytest.raises(InputError, match=words):
        METHODS[name]().check(problem.layers, 2, 2)


@pytest.mark.parametrize("rule", ["one_shot", "binary", "exhaustive", "shortlist"])
def test_tasks_are_inferred_with_batch_normalisation(rule: str, problem: Problem, photographs: Dataset) -> None:
    method = METHODS["supsup"]()
    learner = method.learner(problem, learned(method, problem, photographs))
    inference = Inference(rule=rule, images_per_decision=25, decision_group=25, strict_images=0)
    right = 0
    for index, classes in enumerate(([0, 1], [2, 3])):
        task = SplitTask(photographs, classes, keep_labels=False)
        found = evaluate(learner, task, index, scenario("GNu"), inference, 0)["paper"]
        right += int((found.chosen == index).sum())
    assert right >= 3


@pytest.mark.parametrize(
    ("name", "inference", "words"),
    [
        ("GNu", Inference(strict_images=0), "images_per_decision: batch normalisation"),
        ("GNu", Inference(images_per_decision=8), "strict_images: batch normalisation"),
        ("NNs", Inference(rule="exhaustive"), "does not support nets with batch normalisation"),
    ],
)
def test_a_superposition_refuses_single_images_with_the_reason(name: str, inference: Inference, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check(SCENARIOS[name], METHODS["supsup"](), "supsup", inference, NETS["gem_resnet18"](num_outputs=12), 10)


def test_objectives_take_gradients_through_a_superposition(problem: Problem, photographs: Dataset) -> None:
    method = METHODS["supsup"]()
    learner = method.learner(problem, learned(method, problem, photographs))
    x, _ = SplitTask(photographs, [0, 1], keep_labels=False).test_batch(torch.arange(20))
    both = learner.alpha_gradients(torch.stack([x, x.flip(0)]), None, OBJECTIVES["entropy"])
    torch.testing.assert_close(both[0], both[1], rtol=1e-3, atol=1e-4)
