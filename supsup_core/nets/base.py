"""The interface of networks: layer shapes, and logits as a pure function of weights and images."""

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

    `is_gate`: True if the tensor multiplies the units of a hidden layer. Its values are 1 unless a mask changes them.
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
    """Interface of a net with batch normalisation whose statistics are stored.

    Each task stores the mean and the variance of every batch normalisation.
    """

    @abstractmethod
    def statistics_widths(self) -> tuple[int, ...]:
        """The number of feature maps of each batch normalisation, in the order in which `forward` applies them."""

    @abstractmethod
    def batch_statistics(self, weights: Sequence[Tensor], x: Tensor) -> list[Tensor]:
        """The mean and unbiased variance (width,) of each batch normalisation in turn, measured on images x."""


@dataclass(frozen=True, kw_only=True)
class Net(ABC):
    """A network that holds no weights. A subclass defines `layers` and `forward`, and its fields are its config.

    `num_outputs` (s): the number of output neurons, both real and superfluous. `weight_seed`: the seed of the frozen
    weights; None means the run's seed. A subclass may also derive from KeepsStatistics or ChecksFields and implement
    their methods.
    """

    normalises_by_batch: ClassVar[bool] = False
    """Whether batch normalisation always uses the statistics of the current batch. If so, the logits
    of a single image are not defined."""

    trained_from_signs: ClassVar[bool] = False
    """Whether trained weights are initialised as signed constants (draw_signed) rather than uniformly
    (draw_uniform)."""

    gradients: ClassVar[Gradients[Any]] = Autograd()
    """Computes the gradients for the methods below. A net may set a faster implementation with the same result."""

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

        weights: one tensor of two or more dimensions for each layer. For a KeepsStatistics net, the mean (width,) and
        the variance (width,) of each batch normalisation may follow. Without them the net normalises by the statistics
        of the current batch.
        """

    def norm_widths(self) -> tuple[int, ...]:
        """The number of feature maps of each batch normalisation whose statistics are stored; () if there are none."""
        return self.statistics_widths() if isinstance(self, KeepsStatistics) else ()

    def observe(self, weights: Sequence[Tensor], x: Tensor) -> list[Tensor]:
        """The mean and unbiased variance of each batch normalisation in turn, on images x; [] if there are none."""
        return self.batch_statistics(weights, x) if isinstance(self, KeepsStatistics) else []

    def loss_gradients(self, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The mean cross-entropy (a scalar) for labels y (batch,), and the gradient of each layer's weight."""
        return self.gradients.loss(self, weights, x, y)

    def turned_loss_gradients(
        self, turns: Sequence[Tensor], weights: Sequence[Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Computes `loss_gradients` with the inputs of each layer rotated first.

        Only for nets of fully connected layers. turns: an orthogonal matrix (in, in) for each layer. The layer's
        effective weight is weight @ turn. The gradients are those of the weights (out, in) before rotation.
        """
        return self.gradients.rotated_loss(self, turns, weights, x, y)

    def loss_gradients_together(self, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Computes `loss_gradients` for T tasks at once, each with its own weights and images.

        weights: (T, *layer.shape) for each layer; x: (T, batch, *input_shape); y: (T, batch). Returns the losses (T,)
        and the gradients, in the shapes of the weights. Both equal
        the results of `loss_gradients` for each task alone, within float tolerance.
        """
        return self.gradients.stacked_loss(self, weights, x, y)

    def decision_gradients(
        self, weights: Sequence[Tensor], x: Tensor, objective: Objective, num_labels: int
    ) -> Iterator[list[Tensor]]:
        """Yields the gradient of the objective with respect to each layer's weight, for each of D groups of images.

        x: (D, images, *input_shape). weights: as in `forward`. Each item belongs to one group and is a list with one
        tensor of layer.shape for each layer. The gradients of all groups together may not fit into a cache, so they are
        yielded one by one.
        """
        return self.gradients.decisions(self, weights, x, objective, num_labels)


NETS: Registry[type[Net]] = Registry("net")
