"""ReLU multilayer perceptrons without biases: LeNet 300-100 and FC 1024-1024."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from supsup_core.kernels.matmul import input_gradient, linear, weight_gradient
from supsup_core.nets.base import NETS, InitialWeights, Layer, Net, Objective
from supsup_core.nets.gradients import Gradients


def _activations(
    weights: Sequence[Tensor], x: Tensor, rotations: Sequence[Tensor] | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Returns two lists: the inputs of the layers, and the flattened images followed by the outputs of the layers.

    The inputs are rotated if `rotations` are given. The outputs of hidden layers are after the ReLU.
    """
    inputs, outputs = [], [x.flatten(1)]
    for index, weight in enumerate(weights):
        inputs.append(outputs[-1] if rotations is None else linear(outputs[-1], rotations[index]))
        product = linear(inputs[-1], weight)
        outputs.append(product if index == len(weights) - 1 else product.relu_())
    return inputs, outputs


def _relu_gradient(delta: Tensor, output: Tensor) -> Tensor:
    """Returns the gradient of a ReLU's input. delta: the gradient of the ReLU's output. output: the ReLU's output."""
    gradient: Tensor = torch.ops.aten.threshold_backward(delta, output, 0)
    return gradient


@torch.no_grad()
def _backpropagate(
    weights: Sequence[Tensor], x: Tensor, y: Tensor, rotations: Sequence[Tensor] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Returns the mean cross-entropy, and its gradient for each layer's weight.

    rotations: matrices that rotate the inputs of each layer, or None.
    """
    inputs, outputs = _activations(weights, x, rotations)
    log_p = torch.log_softmax(outputs[-1], 1)
    loss = torch.nn.functional.nll_loss(log_p, y)
    delta = log_p.exp_()
    delta.scatter_add_(1, y[:, None], delta.new_full((len(y), 1), -1.0))
    delta /= len(y)
    gradients: list[Tensor] = []
    for index in range(len(weights) - 1, -1, -1):
        gradients.insert(0, weight_gradient(delta, inputs[index]))
        if index:
            delta = input_gradient(delta, weights[index])
            if rotations is not None:
                delta = input_gradient(delta, rotations[index])
            delta = _relu_gradient(delta, outputs[index])
    return loss, gradients


@final
class MLPGradients(Gradients[Any]):
    """Computes an MLP's gradients by hand-written forward and backward passes, without an autograd graph.

    The backward passes leave out the gradient with respect to the images, which training does not need.
    """

    def loss(self, net: Net, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        return _backpropagate(weights, x, y)

    def rotated_loss(
        self, net: Net, rotations: Sequence[Tensor], weights: Sequence[Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        return _backpropagate(weights, x, y, rotations)  # rotates a batch, which is smaller than a weight

    @torch.no_grad()
    def stacked_loss(self, net: Net, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        outputs = [x.flatten(2)]
        for index, weight in enumerate(weights):
            product = torch.bmm(outputs[-1], weight.mT)
            outputs.append(product if index == len(weights) - 1 else product.relu_())
        log_p = torch.log_softmax(outputs[-1], 2)
        losses = -log_p.gather(2, y[:, :, None]).mean((1, 2))
        delta = log_p.exp_()
        delta.scatter_add_(2, y[:, :, None], delta.new_full((*y.shape, 1), -1.0))
        delta /= y.shape[1]
        gradients: list[Tensor] = []
        for index in range(len(weights) - 1, -1, -1):
            gradients.insert(0, torch.bmm(delta.mT, outputs[index]))
            if index:
                delta = _relu_gradient(torch.bmm(delta, weights[index]), outputs[index])
        return losses, gradients

    def decisions(
        self, net: Net, weights: Sequence[Tensor], x: Tensor, objective: Objective, num_labels: int
    ) -> Iterator[list[Tensor]]:
        num_decisions, num_images = x.shape[:2]
        with torch.no_grad():
            inputs, outputs = _activations(weights, x.flatten(0, 1))
        logits = outputs[-1].view(num_decisions, num_images, -1).requires_grad_()
        (slope,) = torch.autograd.grad(objective(logits, num_labels).sum(), logits)
        deltas = [slope.flatten(0, 1)]
        with torch.no_grad():
            for index in range(len(weights) - 1, 0, -1):
                deltas.insert(0, _relu_gradient(input_gradient(deltas[0], weights[index]), outputs[index]))
        for number in range(num_decisions):
            rows = slice(number * num_images, (number + 1) * num_images)
            yield [weight_gradient(delta[rows], given[rows]) for delta, given in zip(deltas, inputs, strict=True)]


@dataclass(frozen=True, kw_only=True)
class MLP(Net):
    """An abstract ReLU MLP. A subclass defines the widths of the hidden layers."""

    trained_from: ClassVar[InitialWeights] = "signed"
    gradients: ClassVar[Gradients[Any]] = MLPGradients()

    @property
    @abstractmethod
    def hidden(self) -> tuple[int, ...]:
        """The widths of the hidden layers, in order."""

    def layers(self, input_shape: tuple[int, ...]) -> tuple[Layer, ...]:
        widths = (math.prod(input_shape), *self.hidden, self.num_outputs)
        return tuple(
            Layer(f"fc{i + 1}", (fan_out, fan_in), fan_in)
            for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths))
        )

    def forward(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        return _activations(weights, x)[1][-1]


@final
@NETS.register("lenet_300_100")
@dataclass(frozen=True, kw_only=True)
class LeNet300100(MLP):
    """LeNet 300-100, the small MNIST net of the paper."""

    @property
    def hidden(self) -> tuple[int, ...]:
        return (300, 100)


@final
@NETS.register("fc_1024_1024")
@dataclass(frozen=True, kw_only=True)
class FC10241024(MLP):
    """FC 1024-1024, the large MNIST net of the paper."""

    @property
    def hidden(self) -> tuple[int, ...]:
        return (1024, 1024)
