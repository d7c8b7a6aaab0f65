"""Time of one NNs decision with k masks, from the images to the chosen mask: packed bits against masks as floats.

The network is LeNet 300-100 with 500 outputs, with random masks, 128 images and one thread. `ours` stores masks as
packed bits. `plain` stacks them as floats in memory (1.26 MB for each mask). Both are timed in turn, and the medians
are compared.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from supsup_core.inference import OBJECTIVES
from supsup_core.masks import codec
from supsup_core.methods import Problem
from supsup_core.nets import NETS
from supsup_core.nns.allocation_tests import ALLOCATION_TESTS
from supsup_core.nns.allocator import Allocator, Decision
from supsup_core.training.loop import TrainingRecipe

ROUNDS, IMAGES = 9, 128
PROBLEM = Problem(NETS["lenet_300_100"](num_outputs=500), (784,), 10, TrainingRecipe(), seed=0)
SIZE = sum(layer.size for layer in PROBLEM.layers)


def filled(k: int) -> Allocator:
    """Returns an allocator with k random masks."""
    drawn = np.random.default_rng(0)

    def draw(number: int) -> codec.Bits:
        return codec.pack(drawn.random(SIZE, np.float32) < 0.5)

    allocator = Allocator(PROBLEM.layers, ALLOCATION_TESTS["outlier"](), "skip", k, draw)
    allocator.replay([Decision(0, 0.0, 0.0, None, None, "allocate", number) for number in range(k)])
    allocator.fill(draw)
    return allocator


def vector_at(mean: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Returns -∂entropy/∂W · W as a flat vector. mean: the flat mean of the masks. x: (1, images, 784)."""
    pieces = torch.split(mean, [layer.size for layer in PROBLEM.layers])
    means = [piece.view(w.shape) * w for piece, w in zip(pieces, PROBLEM.weights, strict=True)]
    (gradients,) = PROBLEM.net.decision_gradients(means, x, OBJECTIVES["entropy"], 10)
    return torch.cat([-(g * w).flatten() for g, w in zip(gradients, PROBLEM.weights, strict=True)])


def ours(allocator: Allocator, x: torch.Tensor) -> None:
    """Makes one decision with the platform's allocator: superposition, gradient, slopes and allocation test."""
    mean = allocator.superposition()
    assert mean is not None
    allocator.decide(allocator.slopes(vector_at(mean, x)[None]))


def _of(k: int, with_peer: bool) -> dict[str, float]:
    """Returns the milliseconds of a decision with k masks. with_peer: also time the version with float masks."""
    allocator = filled(k)
    x = torch.randn(1, IMAGES, 784, generator=torch.Generator().manual_seed(0))
    stacked = torch.from_numpy(codec.unpack(allocator.rows, SIZE).astype(np.float32)) if with_peer else None
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(ROUNDS):
        started = time.perf_counter()
        ours(allocator, x)
        times["ours"].append(time.perf_counter() - started)
        if stacked is not None:
            started = time.perf_counter()
            torch.softmax(stacked @ vector_at(stacked.mean(0), x), 0).argmax()
            times["plain"].append(time.perf_counter() - started)
    found = {"ours_ms": 1000 * statistics.median(times["ours"])}
    if stacked is not None:
        found["plain_ms"] = 1000 * statistics.median(times["plain"])
        found["ratio"] = found["ours_ms"] / found["plain_ms"]
    return found


def measure() -> dict[str, dict[str, float]]:
    """Returns the times for each k. With 2500 masks only `ours` runs, because the float masks need too much memory."""
    torch.set_num_threads(1)
    return {f"k {k}": _of(k, with_peer=k <= 500) for k in (100, 500, 2500)}
