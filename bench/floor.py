"""The machine's limits: the time of a LeNet training step's matrix products alone, and memory bandwidth."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.timing import alternate, medians
from supsup_core.kernels.matmul import input_gradient, linear, weight_gradient

WIDTHS, BATCH = ((784, 300), (300, 100), (100, 100)), 128


def products(batch: int) -> Callable[[], None]:
    """Returns a function that computes the matrix products of one optimiser step of LeNet and nothing else."""
    generator = torch.Generator().manual_seed(0)
    layers = [
        [torch.randn(shape, generator=generator) for shape in ((batch, ins), (outs, ins), (batch, outs))]
        for ins, outs in WIDTHS
    ]

    def multiply() -> None:
        for index, (x, weight, delta) in enumerate(layers):
            linear(x, weight)
            weight_gradient(delta, x)
            if index:  # the gradient of the input images is not needed
                input_gradient(delta, weight)

    return multiply


def measure() -> dict[str, float]:
    """Returns the milliseconds of a step's products, their GFLOP/s, the GFLOP/s of a product of 1024 × 1024 matrices,
    and the GB/s of reading memory, all with one thread."""
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
