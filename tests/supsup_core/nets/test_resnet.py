"""Residual networks against plain torch modules, and what methods keep of batch normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supsup_core.datasets import Dataset, Images
from supsup_core.errors import CorruptError, InputError
from supsup_core.evaluation.protocol import Inference, check, evaluate
from supsup_core.inference import OBJECTIVES
from supsup_core.methods import METHODS, Method, Problem
from supsup_core.methods.norm_statistics import load_norms, measure_norms
from supsup_core.nets import NETS, draw_weights
from supsup_core.scenarios import SCENARIOS, scenario
from supsup_core.tasks.split import SplitTask
from supsup_core.training.loop import TrainingRecipe


class Basic(nn.Module):
    """A basic block as it is usually written."""

    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, affine=False, momentum=None)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, affine=False, momentum=None)
        self.around = nn.Sequential()
        if stride != 1 or into != width:
            self.around = nn.Sequential(
                nn.Conv2d(into, width, 1, stride, bias=False), nn.BatchNorm2d(width, affine=False, momentum=None)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.around(x))


class Gem(nn.Module):
    """GEM's ResNet-18 as it is usually written."""

    def __init__(self, width: int, num_outputs: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width, affine=False, momentum=None), nn.ReLU()
        )
        blocks, into = [], width
        for stage in range(4):
            for index in range(2):
                out = width * 2**stage
                blocks.append(Basic(into, out, 2 if stage and not index else 1))
                into = out
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(into, num_outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.avg_pool2d(self.blocks(self.stem(x)), 4).flatten(1))


def filled(module: nn.Module, weights: Sequence[Tensor]) -> nn.Module:
    """The module with our weights, which come in the order its parameters are made in."""
    with torch.no_grad():
        for parameter, weight in zip(module.parameters(), weights, strict=True):
            parameter.copy_(weight)
    return module


def test_gems_resnet_is_the_plain_one_in_training_and_with_kept_statistics() -> None:
    net = NETS["gem_resnet18"](num_outputs=7, width=4)
    weights = draw_weights(net.layers((3, 32, 32)), 0)
    peer = filled(Gem(4, 7), weights)
    batches = torch.randn(3, 6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seen: list[list[Tensor]] = []
    for x in batches:
        torch.testing.assert_close(net.forward(weights, x), peer(x), rtol=1e-4, atol=1e-4)
        seen.append(net.observe(weights, x))
    norms = [torch.stack(column).mean(0) for column in zip(*seen, strict=True)]
    peer.eval()
    torch.testing.assert_close(
        net.forward([*weights, *norms], batches[0]), peer(batches[0]).detach(), rtol=1e-4, atol=1e-4
    )
    loss, gradients = net.loss_gradients(weights, batches[0], torch.arange(6))
    peer.train()
    wanted = F.cross_entropy(peer(batches[0]), torch.arange(6))
    torch.testing.assert_close(loss, wanted.detach())
    for found, expected in zip(gradients, torch.autograd.grad(wanted, list(peer.parameters())), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


class Bottleneck(nn.Module):
    """A bottleneck as it is usually written."""

    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()

        def conv(a: int, b: int, kernel: int, step: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False), nn.BatchNorm2d(b, affine=False, momentum=None)
            )

        self.inner = nn.Sequential(
            conv(into, width, 1, 1), nn.ReLU(), conv(width, width, 3, stride), nn.ReLU(), conv(width, 4 * width, 1, 1)
        )
        self.around = nn.Sequential()
        if stride != 1 or into != 4 * width:
            self.around = conv(into, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.inner(x) + self.around(x))


def test_resnet50_is_the_plain_one() -> None:
    net = NETS["resnet50"](num_outputs=3)
    weights = draw_weights(net.layers((3, 64, 64)), 0)
    blocks: list[nn.Module] = []
    into = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        for index in range(count):
            blocks.append(Bottleneck(into, 64 * 2**stage, 2 if stage and not index else 1))
            into = 256 * 2**stage
    peer = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64, affine=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, 3, bias=False),
    )  # fmt: skip
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = filled(peer, weights)(x)
        torch.testing.assert_close(net.forward(weights, x), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
    assert len(net.norm_widths()) == len(weights) - 1


def test_a_residual_network_refuses_flat_images() -> None:
    with pytest.raises(InputError, match="needs images of channels, height and width"):
        NETS["gem_resnet18"]().layers((784,))


@pytest.fixture(scope="module")
def photographs() -> Dataset:
    """Four classes of 3 x 8 x 8 noise, each brighter in a corner of its own."""
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
def test_every_method_keeps_the_statistics_of_each_task(name: str, problem: Problem, photographs: Dataset) -> None:
    """It learns, and answers an image alone as among others."""
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
    if name != "icarl":  # which keeps the last task's alone
        spoilt = {key: tensor for key, tensor in states[1].items() if key != "norm.3"}
        with pytest.raises(CorruptError, match="no statistics that fit"):
            method.learner(problem, [states[0], spoilt])


def test_statistics_are_kept_in_two_bytes_where_that_is_enough(problem: Problem, photographs: Dataset) -> None:
    task = SplitTask(photographs, [0, 1], keep_labels=False)
    weights = problem.weights
    small = measure_norms(problem, 0, task, weights)
    assert {tensor.dtype for tensor in small.values()} == {torch.float16}
    large = measure_norms(problem, 0, task, [weights[0] * 1e4, *weights[1:]])
    assert torch.float32 in {tensor.dtype for tensor in large.values()}
    for kept in (small, large):
        assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in load_norms(kept, problem))


@pytest.mark.parametrize(("name", "words"), [("psp", "fully connected"), ("hop_sup_sup", "use a net with gates")])
def test_methods_say_which_nets_they_take(name: str, words: str, problem: Problem) -> None:
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
        ("NNs", Inference(rule="exhaustive"), "no way yet to keep"),
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
