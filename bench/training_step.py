"""Time of an optimiser step of LeNet 300-100, compared with plain PyTorch and with the matrix products alone.

Batch size 128, 100 outputs, one thread. `plain` uses autograd through a threshold function and torch.optim.RMSprop with
foreach. `floor` computes only the step's matrix products, with the platform's kernels. All peers train on the same
batches, and are timed in turn.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.floor import products
from bench.naive import Subnet
from bench.timing import alternate, medians, ratio
from supsup_core.kernels.matmul import Precision
from supsup_core.masks import Threshold, draw_scores
from supsup_core.nets import NETS, draw_weights
from supsup_core.training.loop import Step, TrainingRecipe
from supsup_core.training.parametrizations import Scored

STEPS, BATCH = 100, 128
NET = NETS["lenet_300_100"](num_outputs=100)
LAYERS = NET.layers((784,))


def plain_step(weights: list[Tensor], scores: list[Tensor]) -> Callable[[Tensor, Tensor], object]:
    """Returns an optimiser step written with autograd and torch.optim."""
    parameters = [torch.nn.Parameter(s) for s in scores]
    optimizer = torch.optim.RMSprop(parameters, lr=1e-4, foreach=True)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        for index, (weight, parameter) in enumerate(zip(weights, parameters, strict=True)):
            x = F.linear(x, weight * Subnet.apply(parameter))
            x = x if index == len(weights) - 1 else F.relu(x)
        F.cross_entropy(x, y).backward()
        optimizer.step()

    return step


def our_step(weights: list[Tensor], scores: list[Tensor], precision: Precision) -> Callable[[Tensor, Tensor], object]:
    """Returns the platform's optimiser step."""
    scored = [Scored(w, s, Threshold()) for w, s in zip(weights, scores, strict=True)]
    return Step(scored, TrainingRecipe(precision=precision), NET.loss_gradients)


def measure(rounds: int = 15) -> dict[str, float]:
    """Returns the milliseconds per optimiser step of each peer, and their ratios."""
    torch.set_num_threads(1)
    weights = draw_weights(LAYERS, 0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(STEPS, BATCH, 784, generator=generator)
    y = torch.randint(0, 10, (STEPS, BATCH), generator=generator)
    steps = {
        "ours": our_step(weights, draw_scores(LAYERS, 0, 0), "float32"),
        "bfloat16": our_step(weights, draw_scores(LAYERS, 0, 0), "bfloat16"),
        "plain": plain_step(weights, draw_scores(LAYERS, 0, 0)),
    }
    batches = itertools.cycle(list(zip(x, y, strict=True)))
    peers: dict[str, Callable[[], object]] = {
        name: lambda step=step: step(*next(batches)) for name, step in steps.items()
    }
    times = alternate(peers | {"floor": products(BATCH)}, rounds=rounds, repeats=STEPS)
    return medians(times) | {
        "ratio to plain": ratio(times, "plain", "ours"),
        "ratio of bfloat16": ratio(times, "ours", "bfloat16"),
        "share of the floor": ratio(times, "floor", "ours"),
    }
