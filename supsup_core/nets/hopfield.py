"""The net of HopSupSup, whose masks are on units instead of weights (paper, section 3.6 and its appendix)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from supsup_core.field_limits import limited
from supsup_core.nets.base import MOST_UNITS, NETS, Layer, Net


@final
@NETS.register("hopfield_mlp")
@dataclass(frozen=True, kw_only=True)
class HopfieldMLP(Net):
    """An MLP with two hidden layers of `width` units, which apply batch normalisation, a gate for each unit, and Swish.

    The gates of a hidden layer are a separate weight tensor (width, 1), which multiplies the normalised outputs.
    Without a mask, gates are 1. Batch normalisation has neither affine parameters nor stored statistics. Batch
    normalisation always uses the statistics of the current batch.
    """

    normalises_by_batch: ClassVar[bool] = True

    width: int = limited(2048, least=1, most=MOST_UNITS)

    def layers(self, input_shape: tuple[int, ...]) -> tuple[Layer, ...]:
        size, width = math.prod(input_shape), self.width
        return (
            Layer("fc1", (width, size), size),
            Layer("gate1", (width, 1), 1, is_gate=True),
            Layer("fc2", (width, width), width),
            Layer("gate2", (width, 1), 1, is_gate=True),
            Layer("fc3", (self.num_outputs, width), width),
        )

    def forward(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        first, gate1, second, gate2, last = weights
        hidden = torch.nn.functional.batch_norm(x.flatten(1) @ first.t(), None, None, training=True)
        hidden = torch.nn.functional.silu(hidden * gate1.t())
        hidden = torch.nn.functional.batch_norm(hidden @ second.t(), None, None, training=True)
        hidden = torch.nn.functional.silu(hidden * gate2.t())
        return hidden @ last.t()
