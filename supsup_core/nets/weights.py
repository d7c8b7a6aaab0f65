"""Draws weights from a seed: the frozen weights, and the initial values of trained weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.nets.base import InitialWeights, Layer

_Draw: TypeAlias = Callable[[int, Layer], Tensor]
"""A function that draws the weights of one layer. Arguments: a child seed (see seeding) and the layer."""


def _signed(gain: float) -> _Draw:
    """Returns a function that draws the values ±sqrt(gain / fan_in), which are equally likely."""
    return lambda child, layer: torch.from_numpy(seeding.signs(child, layer.shape)) * math.sqrt(gain / layer.fan_in)


def _normal(variance: Callable[[Layer], float]) -> _Draw:
    """Returns a function that draws from a normal distribution with mean 0."""

    def draw_normal(child: int, layer: Layer) -> Tensor:
        return torch.from_numpy(seeding.normal(child, layer.shape) * math.sqrt(variance(layer))).float()

    return draw_normal


def _uniform(child: int, layer: Layer) -> Tensor:
    return torch.from_numpy(seeding.uniform(child, layer.shape, 1 / math.sqrt(layer.fan_in)))


_DRAWS: Mapping[InitialWeights, _Draw] = {
    "signed_kaiming": _signed(2),
    "signed": _signed(1),
    "uniform": _uniform,
    "kaiming_normal": _normal(lambda layer: 2 / layer.fan_in),
    "xavier_normal": _normal(lambda layer: 2 / (layer.fan_in + layer.fan_out)),
}


def draw(how: InitialWeights, layers: Sequence[Layer], seed: int, purpose: str, index: int) -> list[Tensor]:
    """Draws weights or scores from the distribution `how` (see InitialWeights).

    Returns float32 tensors on the CPU, one for each layer. Every (seed, purpose, index) gives an independent draw. The
    scale and the shift of a batch normalisation are always 1 and 0.
    """
    return [
        _fixed_start(layer)
        if layer.is_norm
        else _DRAWS[how](seeding.child_seed(seed, f"{purpose}/{layer.name}", index), layer)
        for layer in layers
    ]


def _fixed_start(layer: Layer) -> Tensor:
    """Returns the initial scale and shift of a batch normalisation, (2, width)."""
    return torch.stack([torch.ones(layer.shape[1]), torch.zeros(layer.shape[1])])


def draw_weights(layers: Sequence[Layer], seed: int, how: InitialWeights = "signed_kaiming") -> list[Tensor]:
    """Draws the frozen weights W from `seed`, by default as signed Kaiming constants. Gates are 1.

    Returns float32 tensors on the CPU, one for each layer. Frozen weights are never trained and never stored. A run
    stores only the seed (paper, appendix on training details).
    """
    return [
        torch.ones(layer.shape) if layer.is_gate else draw(how, [layer], seed, "weights", index)[0]
        for index, layer in enumerate(layers)
    ]


def weights_sha256(weights: Sequence[Tensor]) -> str:
    """Returns the SHA-256 of all weights. The hash shows if a machine draws other weights from the same seed."""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
