"""Time of a forward pass with a mask stored as bits, compared with a forward pass without a mask; one thread.

The mask is unpacked and multiplied with the weights for each batch, as after a task is inferred.
"""

from __future__ import annotations

import numpy as np
import torch

from bench.timing import alternate, medians, ratio
from supsup_core.masks import MaskBank, codec
from supsup_core.nets import NETS, draw_weights

NETS_MEASURED = {"lenet_300_100": ((784,), 10_000), "gem_resnet18": ((3, 32, 32), 256), "resnet50": ((3, 224, 224), 32)}
"""For each net: the shape of an image and the number of images in one forward pass. LeNet gets the whole test set of a
permuted task; the other nets get fewer images, to limit memory."""


def measure() -> dict[str, dict[str, float]]:
    """Returns, for each net, the milliseconds with and without the mask, and the overhead of the mask in percent."""
    torch.set_num_threads(1)
    return {name: _of(name, shape, count) for name, (shape, count) in NETS_MEASURED.items()}


@torch.no_grad()
def _of(name: str, shape: tuple[int, ...], num_images: int) -> dict[str, float]:
    net = NETS[name](num_outputs=100)
    layers = net.layers(shape)
    weights = draw_weights(layers, 0)
    bank = MaskBank(layers)
    bank.add(codec.pack(np.random.default_rng(0).random(bank.size) < 0.5))
    x = torch.randn(num_images, *shape, generator=torch.Generator().manual_seed(0))
    times = alternate(
        {
            "masked": lambda: net.forward([m.mul_(w) for m, w in zip(bank.mask(0), weights, strict=True)], x),
            "plain": lambda: net.forward(weights, x),
        }
    )
    return medians(times) | {"overhead_percent": 100 * (ratio(times, "masked", "plain") - 1)}
