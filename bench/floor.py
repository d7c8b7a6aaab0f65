"""What this machine can do at best: the products of a LeNet step at their shapes, and the reading of memory."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.timing import alternate, medians
from supsup_core.kernels.matmul import input_gradient, linear, weight_gradient

WIDTHS, BATCH = ((784, 300), (300, 100), (100, 100)), 128


def products(batch: int) -> Callable[[], None]:
    """The products of a step's matrices, and nothing else."""
    generator = torch.Generator().manual_seed(0)
    layers = [
        [torch.randn(shape, generator=generator) for shape in ((batch, ins), (outs, ins), (batch, outs))]
        for ins, outs in WIDTHS
    ]

    def multiply() -> None:
        for index, (x, weight, delta) in enumerate(layers):
            linear(x, weight)
            weight_gradient(delta, x)
            if index:  # nobody needs the gradient of the images
                input_gradient(delta, weight)

    return multiply


def measure() -> dict[str, float]:
    """Milliseconds of a step's products alone, GFLOP/s of these and of large squares, GB/s of reading; one thread."""
    torch.set_num_threads(1)
    square = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
    memory = torch.ones(1 << 27, dtype=torch.int64)
    times = alternate({"products": products(BATCH), "square": lambda: linear(square, square)}, repeats=50)
    found = medians(times) | medians(alternate({"read": memory.sum}))
    flops = 2 * BATCH * sum((3 if index else 2) * ins * outs for index, (ins, outs) in enumerate(WIDTHS))
    return {
        "products_ms": found["products_ms"],
        "products GFLOP/s": flops / found["products_ms"] / 1e6,
        "square GFLOP/s": 2 * 1024**3 / found["square_ms"] / 1e6,
        "read GB/s": memory.nbytes / found["read_ms"] / 1e6,
    }
