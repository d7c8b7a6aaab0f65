"""Peak memory of inferring a task with many masks: LeNet with 2500 masks, FC with 250 and ResNet-50 with 100.

Each network runs in a separate process. The process adds packed masks one by one, then infers the task of one group
of images with the one-shot rule. `before_mb` is the peak memory of the process before the first mask is added.
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
"""For each net: number of masks, number of outputs, shape of an image, number of images that share one inference."""


def measure() -> dict[str, dict[str, float]]:
    """Returns, for each net, the MB of its process before the masks and at the peak, and the MB of its masks."""
    command = [sys.executable, "-m", "bench.learners"]
    found = {}
    for name in CASES:
        done = subprocess.run([*command, name], check=True, capture_output=True, text=True)
        found[name] = json.loads(done.stdout)
    return found


def _peak() -> float:
    """Returns this process's peak RSS in MB. Unlike ru_maxrss, it excludes the memory of the parent before exec."""
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
