"""Peak memory of a process that infers tasks among many masks: LeNet × 2500, FC × 250, ResNet-50 × 100.

Each in a process of its own: the masks are added one by one, packed, and one group of images is decided for in one
shot. `before`: the process with torch and one batch of images, but no mask.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

CASES = {
    "lenet_300_100": (2500, 500, (784,), 128),
    "fc_1024_1024": (250, 500, (784,), 128),
    "resnet50": (100, 10, (3, 224, 224), 8),
}
"""Net: masks, outputs, shape of an image, images that are decided for together."""


def measure() -> dict[str, dict[str, float]]:
    """MB of each net's process before and at its peak, and of its masks as bits and as floats."""
    command = [sys.executable, "-m", "bench.learners"]
    found = {}
    for name in CASES:
        done = subprocess.run([*command, name], check=True, capture_output=True, text=True)
        found[name] = json.loads(done.stdout)
    return found


def _peak() -> float:
    """Peak RSS in MB of this program: unlike ru_maxrss, without that of the process it was forked from."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def _of(name: str) -> dict[str, float]:
    from supsup_core.inference import OBJECTIVES
    from supsup_core.masks import MaskBank, codec
    from supsup_core.nets import NETS, draw_weights

    num_masks, num_outputs, shape, num_images = CASES[name]
    net = NETS[name](num_outputs=num_outputs)
    layers = net.layers(shape)
    weights = draw_weights(layers, 0)
    x = torch.randn(1, num_images, *shape, generator=torch.Generator().manual_seed(0))
    list(net.decision_gradients(weights, x, OBJECTIVES["entropy"], 10))
    before = _peak()
    bank = MaskBank(layers)
    random = np.random.default_rng(0)
    for _ in range(num_masks):
        bits = random.integers(0, 256, codec.num_packed_bytes(bank.size), dtype=np.uint8)
        if bank.size % 8:
            bits[-1] &= (1 << bank.size % 8) - 1
        bank.add(bits)
    means = [mean * weight for mean, weight in zip(bank.mean(), weights, strict=True)]
    (gradients,) = net.decision_gradients(means, x, OBJECTIVES["entropy"], 10)
    vector = torch.cat([-(g * w).flatten() for g, w in zip(gradients, weights, strict=True)])
    assert bank.products(vector[None]).shape == (1, num_masks)
    sizes = {"masks": num_masks, "bits_mb": bank.rows.nbytes / 1e6, "floats_mb": num_masks * bank.size * 4 / 1e6}
    return sizes | {"before_mb": before, "peak_mb": _peak()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(_of(sys.argv[1])))
