"""What a network is here: layer shapes, and a pure function of effective weights and inputs."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.errors import InputError
from supsup_core.registry import Registry

Objective: TypeAlias = "Callable[[Tensor, int], Tensor]"
"""Logits (..., images, num_outputs) and num_labels to one value per leading index; see inference.objectives."""


@dataclass(frozen=True)
class Layer:
    """One weight tensor. `fan_in` is the number of inputs that one output neuron sums over.

    `is_gate`: it multiplies units one by one, and is 1 unless it is masked.
    """

    name: str
    shape: tuple[int, ...]
    fan_in: int
    is_gate: bool = False

    @property
    def size(self) -> int:
        """How many weights the layer has."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Net(ABC):
    """A network without weights of its own. Subclasses are final and add only fields and shapes.

    `num_outputs` (s) counts the real output neurons and the superfluous ones. `weight_seed` draws the
    frozen weights; None takes the run's seed.
    """

    normalises_by_batch: ClassVar[bool] = False
    """Whether batch normalisation always takes the images at hand, so that one image alone cannot be answered."""

    trained_from_signs: ClassVar[bool] = False
    """Whether weights to be trained start as frozen ones do, signed Kaiming constant, or else Kaiming uniform."""

    num_outputs: int = 10
    weight_seed: int | None = None

    def __post_init__(self) -> None:
        if self.num_outputs < 1:
            raise InputError(f"num_outputs: must be at least 1, not {self.num_outputs}")

    @abstractmethod
    def layers(self, input_shape: tuple[int, ...]) -> tuple[Layer, ...]:
        """The weight tensors for images of `input_shape`, in the order `forward` takes them."""

    def norm_widths(self) -> tuple[int, ...]:
        """The number of maps that each batch normalisation sees, in the order `forward` meets them."""
        return ()

    @abstractmethod
    def forward(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Logits (batch, num_outputs) of images x (batch, *input_shape); differentiable in `weights`.

        A net with batch normalisation takes, after the layers' weights, which have two dimensions or more, the mean
        and the variance (width,) of each in turn; without them it normalises by the images at hand.
        """

    def observe(self, weights: Sequence[Tensor], x: Tensor) -> list[Tensor]:
        """What batch normalisation sees on a batch of images: mean and variance (unbiased) of each in turn."""
        return []

    def loss_gradients(self, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Mean cross-entropy (a scalar) of labels y (batch,), and its gradient in each layer's weight.

        This default goes through autograd; a net may override it with the same result, faster.
        """
        leaves = [w.detach().requires_grad_() for w in weights]
        loss = torch.nn.functional.cross_entropy(self.forward(leaves, x), y)
        return loss.detach(), list(torch.autograd.grad(loss, leaves))

    def turned_loss_gradients(
        self, turns: Sequence[Tensor], weights: Sequence[Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """`loss_gradients` where the inputs of each layer, all fully connected, are turned first, by (in, in) matrices:
        in each weight, (out, in), where the layer's own is weight @ turn.

        This default turns the weights; a net may override it with the same result, faster.
        """
        turned = [weight @ turn for weight, turn in zip(weights, turns, strict=True)]
        loss, gradients = self.loss_gradients(turned, x, y)
        return loss, [gradient @ turn.t() for gradient, turn in zip(gradients, turns, strict=True)]

    def loss_gradients_together(self, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`loss_gradients` for T tasks at once, each with weights and images of its own.

        weights: (T, *layer.shape) for each layer; x: (T, batch, *input_shape); y: (T, batch). Returns the losses (T,)
        and the gradients, shaped as the weights: what one task at a time gives, within float tolerance. This default
        maps autograd over the tasks; a net may override it with the same result, faster.
        """
        return mapped_gradients(self.forward, weights, x, y)

    def decision_gradients(
        self, weights: Sequence[Tensor], x: Tensor, objective: Objective, num_labels: int
    ) -> Iterator[list[Tensor]]:
        """Gradient of the objective in each layer's weight, for each of D decisions taken apart.

        x: (D, images, *input_shape); weights as `forward` takes them. Yields one decision's after the other, for all
        together may be far larger than a cache: a tensor of layer.shape per layer. This default runs autograd once a
        decision; a net may override it with the same result, faster.
        """
        num_layers = sum(w.dim() > 1 for w in weights)
        for images in x:
            leaves = [w.detach().requires_grad_() for w in weights[:num_layers]]
            value = objective(self.forward([*leaves, *weights[num_layers:]], images), num_labels)
            yield list(torch.autograd.grad(value, leaves))


NETS: Registry[type[Net]] = Registry("net")


def mapped_gradients(
    forward: Callable[[Sequence[Tensor], Tensor], Tensor], weights: Sequence[Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Net.loss_gradients_together for a `forward` that can be mapped over tasks (torch.func.vmap)."""

    def loss(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(forward(weights, x), y)

    gradients, losses = torch.func.vmap(torch.func.grad_and_value(loss))([w.detach() for w in weights], x, y)
    return losses.detach(), gradients


def draw_weights(layers: Sequence[Layer], seed: int) -> list[Tensor]:
    """The frozen weights W of `seed`: signed Kaiming constant, w = ±sqrt(2 / fan_in), float32, on the CPU; gates 1.

    Never trained and never stored; the seed is what a run keeps (paper, appendix on training details).
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
    """±1 / sqrt(fan_in), float32, on the CPU, of a draw of its own for each (seed, purpose, index): weights to be
    trained. With them the published dense curves come out, which do not say where they start (docs/results)."""
    drawn = []
    for layer in layers:
        sign = seeding.signs(seeding.child_seed(seed, f"{purpose}/{layer.name}", index), layer.shape)
        drawn.append(torch.from_numpy(sign) * math.sqrt(1 / layer.fan_in))
    return drawn


def draw_uniform(layers: Sequence[Layer], seed: int, purpose: str, index: int) -> list[Tensor]:
    """Kaiming uniform with a = sqrt(5), U(-1/sqrt(fan_in), 1/sqrt(fan_in)), float32, on the CPU: scores, and weights
    that are to be trained. Each (seed, purpose, index) draws its own."""
    drawn = []
    for layer in layers:
        child = seeding.child_seed(seed, f"{purpose}/{layer.name}", index)
        drawn.append(torch.from_numpy(seeding.uniform(child, layer.shape, 1 / math.sqrt(layer.fan_in))))
    return drawn


def weights_sha256(weights: Sequence[Tensor]) -> str:
    """SHA-256 over the bytes of all weights: finds out a machine that draws another W from the seed."""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
