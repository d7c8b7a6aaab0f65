"""Time of exact top-k masks for all layers of ResNet-50 at density 0.1, by counting and by a sort, on one thread."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.timing import alternate, medians, ratio
from supsup_core.masks import draw_scores, num_kept, top_k_mask
from supsup_core.nets import NETS

DENSITY = 0.1


def by_sort(scores: Tensor, count: int) -> Tensor:
    """Computes the top-k mask with a full sort, as edge-popup's published code does."""
    order = scores.abs().flatten().sort(descending=True, stable=True).indices
    mask = torch.zeros(scores.numel())
    mask[order[:count]] = 1
    return mask.view(scores.shape)


def measure(num_layers: int | None = None) -> dict[str, float]:
    """Returns the milliseconds of both methods and their ratio. num_layers: use only this many first layers.

    Checks that both methods give identical masks.
    """
    torch.set_num_threads(1)
    scores = draw_scores(NETS["resnet50"](num_outputs=1000).layers((3, 224, 224))[:num_layers], 0, 0)
    counts = [num_kept(DENSITY, layer.numel()) for layer in scores]
    pairs = list(zip(scores, counts, strict=True))
    out = [torch.empty_like(layer) for layer in scores]
    for (layer, count), place in zip(pairs, out, strict=True):
        assert torch.equal(top_k_mask(layer, count, True, place), by_sort(layer, count)), "the masks must be identical"
    times = alternate(
        {
            "ours": lambda: [top_k_mask(s, n, True, place) for (s, n), place in zip(pairs, out, strict=True)],
            "sort": lambda: [by_sort(s, n) for s, n in pairs],
        }
    )
    return medians(times) | {"ratio": ratio(times, "sort", "ours"), "weights": sum(s.numel() for s in scores)}
