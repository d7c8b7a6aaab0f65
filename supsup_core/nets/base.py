"""Networks: layer shapes, and a pure function of weights and images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from supsup_core.errors import InputError
from supsup_core.nets.gradients import Autograd, Gradients, Objective
from supsup_core.registry import ChecksFields, Registry

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NETS", "KeepsStatistics", "Layer", "Net", "Objective"]


@dataclass(frozen=True)
class Layer:
    """One weight tensor. `fan_in` is the number of inputs that one output neuron sums over.

    `is_gate`: the tensor multiplies the units of a hidden layer, and is 1 unless it is masked.
    """

    name: str
    shape: tuple[int, ...]
    fan_in: int
    is_gate: bool = False

    @property
    def size(self) -> int:
        """The number of weights in the layer."""
        return math.prod(self.shape)


class KeepsStatistics(ABC):
    """A net with batch normalisation whose mean and variance each task stores."""

    @abstractmethod
    def statistics_widths(self) -> tuple[int, ...]:
        """The number of maps that each batch normalisation sees, in the order of `forward`."""

    @abstractmethod
    def batch_statistics(self, weights: Sequence[Tensor], x: Tensor) -> list[Tensor]:
        """The mean and the unbiased variance (width,) of each batch normalisation in turn, on images x."""


@dataclass(frozen=True, kw_only=True)
class Net(ABC):
    """A network that holds no weights. A subclass adds fields, which are its config, `layers` and `forward`.

    `num_outputs` (s) counts the real output neurons and the superfluous ones. `weight_seed` draws the frozen weights;
    None means the run's seed. A subclass that also derives from KeepsStatistics or ChecksFields implements those.
    """

    normalises_by_batch: ClassVar[bool] = False
    """Whether batch normalisation always uses the images at hand, so that one image alone cannot be answered."""

    trained_from_signs: ClassVar[bool] = False
    """Whether weights to be trained start as signed constants (draw_signed) rather than uniform (draw_uniform)."""

    gradients: ClassVar[Gradients[Any]] = Autograd()
    """How the gradients below are computed. A net may have its own way to the same result, faster."""

    num_outputs: int = 10
    weight_seed: int | None = None

    def __post_init__(self) -> None:
        if self.num_outputs < 1:
            raise InputError(f"num_outputs: must be at least 1, not {self.num_outputs}")
        if isinstance(self, ChecksFields):
            self.check_fields()

    @abstractmethod
    def layers(self, input_shape: tuple[int, ...]) -> tuple[Layer, ...]:
        """The weight tensors for images of `input_shape`, in the order in which `forward` takes them."""

    @abstractmethod
    def forward(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Logits (batch, num_outputs) of images x (batch, *input_shape); differentiable in `weights`.

        A net that KeepsStatistics takes, after the layers' weights, which have two dimensions or more, the mean and the
        variance (width,) of each batch normalisation in turn. Without them it normalises by the images at hand.
        """

    def norm_widths(self) -> tuple[int, ...]:
        """The number of maps of each batch normalisation whose statistics are stored; () for a net without any."""
        return self.statistics_widths() if isinstance(self, KeepsStatistics) else ()

    def observe(self, weights: Sequence[Tensor], x: Tensor) -> list[Tensor]:
        """The mean and the unbiased variance of each batch normalisation in turn, on images x; [] without any."""
        return self.batch_statistics(weights, x) if isinstance(self, KeepsStatistics) else []

    def loss_gradients(self, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Mean cross-entropy (a scalar) of labels y (batch,), and its gradient in each layer's weight."""
        return self.gradients.loss(self, weights, x, y)

    def turned_loss_gradients(
        self, turns: Sequence[Tensor], weights: Sequence[Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """`loss_gradients` with the inputs of each layer rotated first, for nets of fully connected layers.

        turns: an orthogonal matrix (in, in) for each layer, whose effective weight is weight @ turn. The gradients are
        those in the weights (out, in).
        """
        return self.gradients.rotated_loss(self, turns, weights, x, y)

    def loss_gradients_together(self, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`loss_gradients` for T tasks at once, each with weights and images of its own.

        weights: (T, *layer.shape) for each layer; x: (T, batch, *input_shape); y: (T, batch). Returns the losses (T,)
        and the gradients, shaped as the weights: the same as one task at a time, within float tolerance.
        """
        return self.gradients.stacked_loss(self, weights, x, y)

    def decision_gradients(
        self, weights: Sequence[Tensor], x: Tensor, objective: Objective, num_labels: int
    ) -> Iterator[list[Tensor]]:
        """The gradient of the objective in each layer's weight, for each of D decisions on its own.

        x: (D, images, *input_shape); weights as `forward` takes them. Yields, for one decision after the other, a
        tensor of layer.shape for each layer; all of them together may not fit into a cache.
        """
        return self.gradients.decisions(self, weights, x, objective, num_labels)


NETS: Registry[type[Net]] = Registry("net")
