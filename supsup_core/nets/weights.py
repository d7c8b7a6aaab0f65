"""Draws weights from a seed: the frozen weights, and the initial values of trained weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.nets.base import Layer


def draw_weights(layers: Sequence[Layer], seed: int) -> list[Tensor]:
    """Draws the frozen weights W from `seed`: signed Kaiming constants ±sqrt(2 / fan_in), or 1 for gates.

    Returns float32 tensors on the CPU, one for each layer. Frozen weights are never trained and never stored. A run
    stores only the seed (paper, appendix on training details).
    """
    drawn = []
    for index, layer in enumerate(layers):
        if layer.is_gate:
            drawn.append(torch.ones(layer.shape))
            continue
        sign = seeding.signs(seeding.child_seed(seed, f"weights/{layer.name}", index), layer.shape)
        drawn.append(torch.from_numpy(sign) * math.sqrt(2 / layer.fan_in))
    return drawn


def draw_signed(layers: Sequence[Layer], seed: int, purpose: str, index: int) -> list[Tensor]:
    """Draws initial weights ±1 / sqrt(fan_in), as float32 tensors on the CPU, one for each layer.

    Every (seed, purpose, index) gives an independent draw. The paper does not say how trained weights are initialised.
    The values ±1 / sqrt(fan_in) reproduce the published curves (docs/results).
    """
    drawn = []
    for layer in layers:
        sign = seeding.signs(seeding.child_seed(seed, f"{purpose}/{layer.name}", index), layer.shape)
        drawn.append(torch.from_numpy(sign) * math.sqrt(1 / layer.fan_in))
    return drawn


def draw_uniform(layers: Sequence[Layer], seed: int, purpose: str, index: int) -> list[Tensor]:
    """Draws initial scores or weights from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), Kaiming uniform with a = sqrt(5).

    Returns float32 tensors on the CPU, one for each layer. Every (seed, purpose, index) gives an independent draw.
    """
    drawn = []
    for layer in layers:
        child = seeding.child_seed(seed, f"{purpose}/{layer.name}", index)
        drawn.append(torch.from_numpy(seeding.uniform(child, layer.shape, 1 / math.sqrt(layer.fan_in))))
    return drawn


def weights_sha256(weights: Sequence[Tensor]) -> str:
    """Returns the SHA-256 of all weights. The hash shows if a machine draws other weights from the same seed."""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
