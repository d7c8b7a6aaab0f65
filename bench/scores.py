"""Time of the k slopes of one-shot inference, for one and for sixteen vectors: packed masks against float masks.

The masks are k = 2500 random masks of LeNet 300-100 with 500 outputs (98.5 MB as bits, 3.15 GB as floats). One thread.
"""

from __future__ import annotations

import numpy as np
import torch

from bench.timing import alternate, medians, ratio
from supsup_core.masks import codec
from supsup_core.masks.products import inner_products

TOGETHER = 16
NUM_MASKS, SIZE = 2500, 784 * 300 + 300 * 100 + 100 * 500


def measure(num_masks: int = NUM_MASKS) -> dict[str, float]:
    """Returns the milliseconds, memory ratio and error of packed masks, and the time to read their bits once."""
    torch.set_num_threads(1)
    rows = np.random.default_rng(0).integers(0, 256, (num_masks, codec.num_packed_bytes(SIZE)), dtype=np.uint8)
    rows[:, -1] &= (1 << SIZE % 8) - 1 if SIZE % 8 else 255
    floats = torch.empty(num_masks, SIZE)
    for row, place in zip(rows, floats, strict=True):
        place.copy_(torch.from_numpy(codec.unpack(row, SIZE)))
    vectors = torch.randn(TOGETHER, SIZE, generator=torch.Generator().manual_seed(0))
    vector = vectors[0]
    words = torch.from_numpy(rows).view(-1)[: rows.size // 8 * 8].view(torch.int64)
    times = alternate(
        {
            "ours": lambda: inner_products(rows, SIZE, vector[None]),
            "floats": lambda: floats @ vector,
            "read": words.sum,
            "ours together": lambda: inner_products(rows, SIZE, vectors),
            "floats together": lambda: floats @ vectors.t(),
        }
    )
    exact = torch.stack([mask.double() @ vector.double() for mask in floats])
    ours = inner_products(rows, SIZE, vector[None])[0].double()
    together = inner_products(rows, SIZE, vectors)[0].double()
    assert ours.argmax() == (floats @ vector).argmax(), "both must choose the same mask"
    return medians(times) | {
        "ratio to floats": ratio(times, "floats", "ours"),
        "reads": 1 / ratio(times, "read", "ours"),
        "memory": rows.nbytes / (floats.numel() * 4),
        "error": float((ours - exact).abs().max() / exact.abs().max()),
        "ratio to one": ratio(times, "ours", "ours together") * TOGETHER,
        "ratio to floats together": ratio(times, "floats together", "ours together"),
        "error together": float((together - exact).abs().max() / exact.abs().max()),
    }
