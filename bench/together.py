"""Time of an optimiser step for eight stacked tasks, compared with one task after the other.

The network is LeNet 300-100 with 100 outputs, batch size 128, one thread.
"""

from __future__ import annotations

import torch

from bench.timing import alternate, medians, ratio
from supsup_core.masks import Threshold, draw_scores
from supsup_core.masks.edge_popup import Each
from supsup_core.nets import NETS, draw_weights
from supsup_core.training.loop import Step, TrainingRecipe
from supsup_core.training.parametrizations import Scored

TOGETHER, BATCH, STEPS = 8, 128, 10


def measure() -> dict[str, float]:
    """Returns the milliseconds per task and optimiser step, for single tasks and for stacked tasks, and their ratio."""
    torch.set_num_threads(1)
    net = NETS["lenet_300_100"](num_outputs=100)
    layers = net.layers((784,))
    weights = draw_weights(layers, 0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(TOGETHER, BATCH, 784, generator=generator)
    y = torch.randint(0, 10, (TOGETHER, BATCH), generator=generator)
    scores = [draw_scores(layers, 0, task) for task in range(TOGETHER)]
    recipe = TrainingRecipe()
    alone = [
        Step([Scored(w, s, Threshold()) for w, s in zip(weights, own, strict=True)], recipe, net.loss_gradients)
        for own in scores
    ]
    stacked = [torch.stack(layer) for layer in zip(*scores, strict=True)]
    rule = Each(Threshold())
    at_once = Step(
        [Scored(w, s, rule) for w, s in zip(weights, stacked, strict=True)], recipe, net.loss_gradients_together
    )

    def one_by_one() -> None:
        for step, images, labels in zip(alone, x, y, strict=True):
            for _ in range(STEPS):
                step(images, labels)

    def together() -> None:
        for _ in range(STEPS):
            at_once(x, y)

    times = alternate({"alone": one_by_one, "together": together})
    each = {name: value / (TOGETHER * STEPS) for name, value in medians(times).items()}
    return each | {"ratio": ratio(times, "alone", "together")}
