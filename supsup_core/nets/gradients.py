"""Computes a net's gradients: the interface, and the default implementation by autograd."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, final

import torch
from torch import Tensor

if TYPE_CHECKING:
    from supsup_core.nets.base import Net

Objective: TypeAlias = "Callable[[Tensor, int], Tensor]"
"""A function from logits (..., images, num_outputs) and num_labels to the values (...) that inference minimises. The
module inference.objectives defines all objectives."""

N = TypeVar("N", bound="Net", contravariant=True)


class Gradients(ABC, Generic[N]):
    """Interface: computes the gradients of nets of one class. `Net` documents what each method returns."""

    @abstractmethod
    def loss(self, net: N, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Implements `Net.loss_gradients`."""

    @abstractmethod
    def rotated_loss(
        self, net: N, rotations: Sequence[Tensor], weights: Sequence[Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Implements `Net.turned_loss_gradients`."""

    @abstractmethod
    def stacked_loss(self, net: N, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Implements `Net.loss_gradients_together`."""

    @abstractmethod
    def decisions(
        self, net: N, weights: Sequence[Tensor], x: Tensor, objective: Objective, num_labels: int
    ) -> Iterator[list[Tensor]]:
        """Implements `Net.decision_gradients`."""


@final
class Autograd(Gradients[Any]):
    """Computes the gradients of any net by autograd through its `forward`."""

    def loss(self, net: Net, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        leaves = [w.detach().requires_grad_() for w in weights]
        loss = torch.nn.functional.cross_entropy(net.forward(leaves, x), y)
        return loss.detach(), list(torch.autograd.grad(loss, leaves))

    def rotated_loss(
        self, net: Net, rotations: Sequence[Tensor], weights: Sequence[Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        rotated = [weight @ rotation for weight, rotation in zip(weights, rotations, strict=True)]
        loss, gradients = net.loss_gradients(rotated, x, y)
        return loss, [gradient @ rotation.t() for gradient, rotation in zip(gradients, rotations, strict=True)]

    def stacked_loss(self, net: Net, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        return map_loss_gradients(net.forward, weights, x, y)

    def decisions(
        self, net: Net, weights: Sequence[Tensor], x: Tensor, objective: Objective, num_labels: int
    ) -> Iterator[list[Tensor]]:
        num_layers = sum(w.dim() > 1 for w in weights)
        for images in x:
            leaves = [w.detach().requires_grad_() for w in weights[:num_layers]]
            value = objective(net.forward([*leaves, *weights[num_layers:]], images), num_labels)
            yield list(torch.autograd.grad(value, leaves))


def map_loss_gradients(
    forward: Callable[[Sequence[Tensor], Tensor], Tensor], weights: Sequence[Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Implements `Net.loss_gradients_together` for a function `forward` that torch.func.vmap can map over tasks."""

    def loss(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(forward(weights, x), y)

    gradients, losses = torch.func.vmap(torch.func.grad_and_value(loss))([w.detach() for w in weights], x, y)
    return losses.detach(), gradients
