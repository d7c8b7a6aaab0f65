"""A training step of LeNet 300-100 (batch 128, s = 100, one thread) against the plain way.

The plain way: autograd through a threshold function, torch.optim.RMSprop with foreach. Both get the same
batches of permuted data; rounds alternate, and the medians are compared.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from supsup_core.masks import Threshold, draw_scores
from supsup_core.nets import NETS, draw_weights
from supsup_core.parametrizations import Scored
from supsup_core.training import Step, TrainingRecipe

ROUNDS, STEPS, BATCH = 15, 100, 128


class _Threshold(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, scores: Tensor) -> Tensor:
        return (scores >= 0).float()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


def plain_step(weights: list[Tensor], scores: list[Tensor]) -> Callable[[Tensor, Tensor], None]:
    """A step as a careful researcher first writes it."""
    parameters = [torch.nn.Parameter(s) for s in scores]
    optimizer = torch.optim.RMSprop(parameters, lr=1e-4, foreach=True)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        for index, (weight, parameter) in enumerate(zip(weights, parameters, strict=True)):
            x = F.linear(x, weight * _Threshold.apply(parameter))
            x = x if index == len(weights) - 1 else F.relu(x)
        F.cross_entropy(x, y).backward()
        optimizer.step()

    return step


def measure() -> dict[str, float]:
    """Milliseconds per step of both, and their ratio (medians over alternating rounds)."""
    torch.set_num_threads(1)
    net = NETS["lenet_300_100"](num_outputs=100)
    layers = net.layers((784,))
    weights = draw_weights(layers, 0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(STEPS, BATCH, 784, generator=generator)
    y = torch.randint(0, 10, (STEPS, BATCH), generator=generator)
    scored = [Scored(w, s, Threshold()) for w, s in zip(weights, draw_scores(layers, 0, 0), strict=True)]
    ours = Step(scored, TrainingRecipe(), net.loss_gradients)
    plain = plain_step(weights, draw_scores(layers, 0, 0))
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(ROUNDS):
        for name, step in (("ours", ours), ("plain", plain)):
            started = time.perf_counter()
            for images, labels in zip(x, y, strict=True):
                step(images, labels)
            times[name].append((time.perf_counter() - started) / STEPS * 1e3)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = statistics.median(a / b for a, b in zip(times["ours"], times["plain"], strict=True))
    return {"ours_ms": medians["ours"], "plain_ms": medians["plain"], "ratio": ratio}


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
