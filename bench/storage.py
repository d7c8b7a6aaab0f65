"""Size of encoded masks compared with their entropy and with the paper's storage, and the speed of the codec.

The network is ResNet-50 with 10 outputs. Masks are random, and keep in each layer exactly as many weights as the
density or the Erdős–Rényi budget says. The paper's sizes are those of SplitImageNet's 100 tasks. One thread.
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
"""For each Erdős–Rényi budget, the MB of SplitImageNet's 100 masks in the paper's figure 4: compressed sparse columns
(CSC) with 16-bit indices."""


def drawn(ones: list[int]) -> codec.Bits:
    """Returns a packed random mask. ones: how many weights it keeps in each layer."""
    random = np.random.default_rng(0)
    layers = []
    for layer, count in zip(LAYERS, ones, strict=True):
        mask = np.zeros(layer.size, bool)
        mask[random.permutation(layer.size)[:count]] = True
        layers.append(mask)
    return codec.pack(np.concatenate(layers))


def measure() -> dict[str, dict[str, float]]:
    """Returns, for each density and budget, the bytes, their excess over the entropy, and the coding speed.

    For budgets also the MB of 100 tasks, and their ratio to the paper's MB.
    """
    torch.set_num_threads(1)
    found = {}
    for density in (0.5, 0.1, 0.05, 0.01):
        found[f"density {density}"] = _of([num_kept(density, layer.size) for layer in LAYERS])
    norms = 2 * 2 * sum(NET.norm_widths())  # a mean and a variance for each channel, as float16
    for budget, theirs in PAPER_MB.items():
        row = _of([num_kept(erdos_renyi_density(budget, layer.shape), layer.size) for layer in LAYERS])
        total = TASKS * (row["bytes"] + norms) / 1e6
        found[f"budget {budget}"] = row | {"MB of 100 tasks": total, "paper MB": theirs, "share": total / theirs}
    return found


def _of(ones: list[int]) -> dict[str, float]:
    sizes = [layer.size for layer in LAYERS]
    bits = drawn(ones)
    blob = codec.encode(bits, sum(sizes), sizes)
    assert np.array_equal(codec.decode(blob)[0], bits), "decoding must return the encoded mask"
    times = alternate({"encode": lambda: codec.encode(bits, sum(sizes), sizes), "decode": lambda: codec.decode(blob)})
    speeds = {f"{name[:-3]} Mweights/s": sum(sizes) / ms / 1e3 for name, ms in medians(times).items()}
    entropy = codec.entropy_bytes(list(zip(sizes, ones, strict=True)))
    return {"bytes": len(blob), "over entropy": len(blob) / entropy - 1, **speeds}
