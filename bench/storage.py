"""Bytes of stored masks against their entropy, the coder's speed, and SplitImageNet's 100 tasks against the paper's.

ResNet-50 with 10 outputs, masks drawn at random with exactly the weights that each density or budget keeps of each
layer; one thread.
"""

from __future__ import annotations

import numpy as np
import torch

from bench.timing import alternate, medians
from supsup_core.masks import codec, erdos_renyi_density, num_kept
from supsup_core.nets import NETS

NET = NETS["resnet50"](num_outputs=10)
LAYERS = NET.layers((3, 224, 224))
TASKS = 100
PAPER_MB = {4: 65.50, 8: 100.98, 16: 195.18}
"""SplitImageNet's masks as the paper stores them: compressed sparse columns with indices of 16 bits (its figure 4)."""


def drawn(ones: list[int]) -> codec.Bits:
    """A packed mask that keeps so many weights of each layer, at random."""
    random = np.random.default_rng(0)
    layers = []
    for layer, count in zip(LAYERS, ones, strict=True):
        mask = np.zeros(layer.size, bool)
        mask[random.permutation(layer.size)[:count]] = True
        layers.append(mask)
    return codec.pack(np.concatenate(layers))


def measure() -> dict[str, dict[str, float]]:
    """By density and by budget: bytes, bytes over entropy, million weights a second; for budgets MB of 100 tasks."""
    torch.set_num_threads(1)
    found = {}
    for density in (0.5, 0.1, 0.05, 0.01):
        found[f"density {density}"] = _of([num_kept(density, layer.size) for layer in LAYERS])
    norms = 2 * 2 * sum(NET.norm_widths())  # a mean and a variance of each map, as float16
    for budget, theirs in PAPER_MB.items():
        row = _of([num_kept(erdos_renyi_density(budget, layer.shape), layer.size) for layer in LAYERS])
        total = TASKS * (row["bytes"] + norms) / 1e6
        found[f"budget {budget}"] = row | {"MB of 100 tasks": total, "paper MB": theirs, "share": total / theirs}
    return found


def _of(ones: list[int]) -> dict[str, float]:
    sizes = [layer.size for layer in LAYERS]
    bits = drawn(ones)
    blob = codec.encode(bits, sum(sizes), sizes)
    assert np.array_equal(codec.decode(blob)[0], bits), "what is read is what was written"
    times = alternate({"encode": lambda: codec.encode(bits, sum(sizes), sizes), "decode": lambda: codec.decode(blob)})
    speeds = {f"{name[:-3]} Mweights/s": sum(sizes) / ms / 1e3 for name, ms in medians(times).items()}
    entropy = codec.entropy_bytes(list(zip(sizes, ones, strict=True)))
    return {"bytes": len(blob), "over entropy": len(blob) / entropy - 1, **speeds}
