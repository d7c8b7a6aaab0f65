"""Training and inference on a CUDA device, against the same on the CPU. Run with `pytest -m gpu tests/gpu`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from supsup_core.benchmarks import BENCHMARKS, Dataset
from supsup_core.inference import OBJECTIVES
from supsup_core.methods import METHODS, Method, Problem
from supsup_core.methods.base import accuracy
from supsup_core.nets import NETS
from supsup_core.training import TrainingRecipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch finds none"),
]

DEVICES = ("cpu", "cuda")


@pytest.fixture(params=METHODS.names())
def method(request: pytest.FixtureRequest) -> Method:
    return METHODS[request.param]()


def problem_on(device: str, method: Method, num_batches: int) -> Problem:
    recipe = TrainingRecipe(num_batches=num_batches, learning_rate=1e-3)
    net = (
        NETS["hopfield_mlp"](num_outputs=20, width=256)
        if method.recall_images
        else NETS["lenet_300_100"](num_outputs=20)
    )
    return Problem(net, (64,), 10, recipe, seed=3, device=device)


def learned(method: Method, problem: Problem, digits: Dataset, count: int) -> list[dict[str, torch.Tensor]]:
    benchmark = BENCHMARKS["permuted"](base="digits")
    states: list[dict[str, torch.Tensor]] = []
    for index in range(count):
        parents = [states[parent] for parent in method.dependence.parents(index)]
        state = method.learn(problem, index, benchmark.task(index, digits, problem.seed), parents).state
        states.append({name: tensor.cpu() for name, tensor in state.items()})
    return states


def test_a_few_steps_of_training_agree(method: Method, digits: Dataset) -> None:
    """Floats within tolerance; of a mask's bits, those whose score is at the threshold may differ."""
    ours, theirs = (learned(method, problem_on(device, method, 5), digits, 2) for device in DEVICES)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            if tensor.dtype == torch.uint8:
                assert float((tensor != other[name]).double().mean()) < 0.01
            else:
                torch.testing.assert_close(tensor, other[name], rtol=1e-3, atol=1e-4)


def test_training_reaches_the_same_accuracy(method: Method, digits: Dataset) -> None:
    task = BENCHMARKS["permuted"](base="digits").task(1, digits, 3)
    found = []
    for device in DEVICES:
        problem = problem_on(device, method, 300)
        found.append(accuracy(method.learner(problem, learned(method, problem, digits, 2)), task, 1))
    assert abs(found[0] - found[1]) < 0.03


def test_the_same_masks_answer_and_superpose_alike(method: Method, digits: Dataset) -> None:
    problem = problem_on("cpu", method, 40)
    states = learned(method, problem, digits, 3)
    x, _ = BENCHMARKS["permuted"](base="digits").task(1, digits, 3).test_batch(torch.arange(64))
    ours, theirs = (method.learner(replace(problem, device=device), states) for device in DEVICES)
    for mask in range(3):
        torch.testing.assert_close(ours.logits(x, mask), theirs.logits(x, mask), rtol=1e-3, atol=1e-4)
    if method.superposes:
        for subset in (None, torch.tensor([0, 2])):
            slopes = [learner.alpha_gradients(x[None], subset, OBJECTIVES["entropy"]) for learner in (ours, theirs)]
            torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "side"), [("gem_resnet18", 32), ("resnet50", 64)])
def test_nets_agree(name: str, side: int) -> None:
    net = NETS[name](num_outputs=10)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(4, 3, side, side, generator=generator), torch.tensor([0, 3, 5, 9])
    found = []
    for device in DEVICES:
        weights = Problem(net, (3, side, side), 10, TrainingRecipe(), seed=0, device=device).weights
        loss, gradients = net.loss_gradients(weights, x.to(device), y.to(device))
        found.append([loss.cpu(), *(gradient.cpu() for gradient in gradients)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3 * float(one.abs().max()))
