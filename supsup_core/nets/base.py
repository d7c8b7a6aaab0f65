"""The interface of networks: layer shapes, and logits as a pure function of weights and images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from supsup_core.errors import InputError
from supsup_core.field_limits import check_limits, limited
from supsup_core.later_fields import added_later
from supsup_core.nets.gradients import Autograd, Gradients, Objective
from supsup_core.registry import ChecksFields, Registry

if TYPE_CHECKING:
    from torch import Tensor

MOST_UNITS = 1_000_000
"""The largest number of outputs of a net, and of units of a layer."""

MOST_WEIGHTS = 1_000_000_000
"""The largest number of weights of a net, 40 times as many as a ResNet-50 has."""

__all__ = ["MOST_UNITS", "MOST_WEIGHTS", "NETS", "InitialWeights", "KeepsStatistics", "Layer", "Net", "Objective"]


InitialWeights: TypeAlias = Literal["signed_kaiming", "signed", "uniform", "kaiming_normal", "xavier_normal"]
"""A distribution of initial weights. The variances are those of the fan-in and fan-out of a layer.

`signed_kaiming`: ±sqrt(2 / fan_in). `signed`: ±1 / sqrt(fan_in). `uniform`: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), which
is Kaiming uniform with a = sqrt(5), the default of torch. `kaiming_normal`: normal with variance 2 / fan_in (He et al.
2015). `xavier_normal`: normal with variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010).
"""


@dataclass(frozen=True)
class Layer:
    """Describes one weight tensor of a net. `fan_in`: the number of inputs that one output neuron sums over.

    `is_gate`: True if the tensor multiplies the units of a hidden layer. A gate is 1 for every unit, unless a mask
    drops the unit. `is_norm`: True if the tensor (2, width) holds the scale and the shift of a batch normalisation,
    which start at 1 and 0.
    """

    name: str
    shape: tuple[int, ...]
    fan_in: int
    is_gate: bool = False
    is_norm: bool = False

    @property
    def size(self) -> int:
        """The number of weights in the layer."""
        return math.prod(self.shape)

    @property
    def fan_out(self) -> int:
        """The number of output neurons to which one input contributes."""
        return self.shape[0] * math.prod(self.shape[2:])


def check_size(layers: Sequence[Layer]) -> None:
    """Raises InputError if a net has more than MOST_WEIGHTS weights. No weight is drawn."""
    size = sum(layer.size for layer in layers)
    if size > MOST_WEIGHTS:
        raise InputError(
            f"a net of {size:,} weights is larger than {MOST_WEIGHTS:,} weights; lower net.num_outputs, net.width, or "
            "the size of the images"
        )


class KeepsStatistics(ABC):
    """Interface of a net that normalises by stored statistics at inference.

    Each task stores the mean and the variance of every batch normalisation in the net.
    """

    @abstractmethod
    def statistics_widths(self) -> tuple[int, ...]:
        """The number of feature maps of each batch normalisation, in the order in which `forward` applies them."""

    @abstractmethod
    def batch_statistics(self, weights: Sequence[Tensor], x: Tensor) -> list[Tensor]:
        """Measures the mean (width,) and the unbiased variance (width,) of each batch normalisation on images x.

        Returns mean and variance of the first batch normalisation, then those of the second, and so on.
        """


@dataclass(frozen=True, kw_only=True)
class Net(ABC):
    """A network that holds no weights. A subclass defines `layers` and `forward`.

    The fields of a subclass are the keys under `net` in a sweep file. `num_outputs` (s in the paper): the number of
    output neurons, both real and superfluous. `weight_seed`: the seed of the frozen weights; None means the run's seed.
    `initial_weights`: the distribution of the frozen weights, and of the initial values of trained weights. None means
    `signed_kaiming` for frozen weights, and `trained_from` for trained weights (BatchE: `uniform`).
    A subclass may also derive from KeepsStatistics or ChecksFields and implement their methods.
    """

    normalises_by_batch: ClassVar[bool] = False
    """Whether batch normalisation always uses the statistics of the current batch. If the current batch is always used,
    the logits of a single image are not defined."""

    trained_from: ClassVar[InitialWeights] = "uniform"
    """The distribution of the initial values of trained weights, if `initial_weights` is None."""

    gradients: ClassVar[Gradients[Any]] = Autograd()
    """Computes the gradients that the methods below return. A subclass may replace this object by a faster
    implementation."""

    num_outputs: int = limited(10, least=1, most=MOST_UNITS)
    weight_seed: int | None = None
    initial_weights: InitialWeights | None = added_later(None)

    def __post_init__(self) -> None:
        check_limits(self)
        if isinstance(self, ChecksFields):
            self.check_fields()

    @abstractmethod
    def layers(self, input_shape: tuple[int, ...]) -> tuple[Layer, ...]:
        """Describes the weight tensors for images of `input_shape`, in the order in which `forward` takes them."""

    @abstractmethod
    def forward(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Returns the logits (batch, num_outputs) of images x (batch, *input_shape); differentiable in `weights`.

        weights: one tensor of two or more dimensions for each layer. For a KeepsStatistics net, the mean (width,) and
        the variance (width,) of each batch normalisation may follow. Without these statistics, the net normalises by
        the statistics of the current batch.
        """

    def norm_widths(self) -> tuple[int, ...]:
        """The number of feature maps of each batch normalisation, or () if the net does not use stored statistics."""
        return self.statistics_widths() if isinstance(self, KeepsStatistics) else ()

    def observe(self, weights: Sequence[Tensor], x: Tensor) -> list[Tensor]:
        """Returns `batch_statistics(weights, x)`, or [] if the net does not use stored statistics."""
        return self.batch_statistics(weights, x) if isinstance(self, KeepsStatistics) else []

    def loss_gradients(self, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns the mean cross-entropy (a scalar) of images x (batch, *input_shape) with labels y (batch,).

        Also returns the gradient of this loss with respect to each layer's weight.
        """
        return self.gradients.loss(self, weights, x, y)

    def turned_loss_gradients(
        self, turns: Sequence[Tensor], weights: Sequence[Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Computes the loss and the gradients as `loss_gradients` does, but first rotates the inputs of each layer.

        This method works only for nets of fully connected layers. weights: (out, in) for each layer. turns: an
        orthogonal matrix (in, in) for each layer. Each layer therefore computes with weight @ turn. The gradients are
        with respect to `weights`, not to the rotated weights.
        """
        return self.gradients.rotated_loss(self, turns, weights, x, y)

    def loss_gradients_together(self, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Computes the losses and the gradients of T tasks at once. Each task has separate weights and images.

        weights: (T, *layer.shape) for each layer; x: (T, batch, *input_shape); y: (T, batch). Returns the losses (T,),
        and gradients in the shapes of the weights. For each task, the loss and the gradients equal those of
        `loss_gradients` within float tolerance.
        """
        return self.gradients.stacked_loss(self, weights, x, y)

    def decision_gradients(
        self, weights: Sequence[Tensor], x: Tensor, objective: Objective, num_labels: int
    ) -> Iterator[list[Tensor]]:
        """Yields the gradient of the objective with respect to each layer's weight, for each of D groups of images.

        x: (D, images, *input_shape). weights: as in `forward`. Yields one list for each group, with one tensor of
        layer.shape for each layer. The generator yields the groups one by one, because the gradients of all groups
        together may not fit into the processor's cache.
        """
        return self.gradients.decisions(self, weights, x, objective, num_labels)


NETS: Registry[type[Net]] = Registry("net")
