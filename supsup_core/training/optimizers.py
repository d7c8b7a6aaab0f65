"""Optimisers that update plain tensors in place, without an autograd graph."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from supsup_core.registry import Registry


class Optimizer(ABC):
    """Updates parameters from their gradients, and holds the optimiser's state."""

    @abstractmethod
    def __init__(self, parameters: Sequence[Tensor], momentum: float) -> None:
        """parameters: the tensors that `step` updates in place. momentum: must be 0 if `has_momentum` is False."""

    has_momentum: ClassVar[bool] = False

    @abstractmethod
    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        """Update the parameters in place. The gradients may be overwritten."""

    @property
    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """The tensors that an exact resume needs, by name.

        The tensors are not copies: writing stored values into them restores the optimiser.
        """


OPTIMIZERS: Registry[type[Optimizer]] = Registry("optimizer")


@final
@OPTIMIZERS.register("rmsprop")
class RMSprop(Optimizer):
    """RMSprop with torch.optim.RMSprop's defaults (alpha 0.99, eps 1e-8).

    For a contiguous float32 parameter on a CPU, a compiled loop makes the update in one pass, with the same bits on
    every processor. For all other parameters, torch operations make the update.
    """

    def __init__(self, parameters: Sequence[Tensor], momentum: float) -> None:
        self._parameters = parameters
        self._square_means = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        for tensors in zip(self._parameters, gradients, self._square_means, strict=True):
            if all(t.device.type == "cpu" and t.dtype == torch.float32 and t.is_contiguous() for t in tensors):
                self._update_compiled(*tensors, learning_rate)
            else:
                self._update_by_torch(*tensors, learning_rate)

    @staticmethod
    def _update_compiled(parameter: Tensor, gradient: Tensor, square_mean: Tensor, learning_rate: float) -> None:
        from supsup_core.kernels.rmsprop import step_rmsprop  # the import loads numba, which takes 0.2 s

        p, g, mean = (t.view(-1).numpy() for t in (parameter, gradient, square_mean))
        step_rmsprop(p, g, mean, np.float32(learning_rate))

    @staticmethod
    def _update_by_torch(parameter: Tensor, gradient: Tensor, square_mean: Tensor, learning_rate: float) -> None:
        square_mean.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
        parameter.addcdiv_(gradient, square_mean.sqrt().add_(1e-8), value=-learning_rate)

    @property
    def state(self) -> dict[str, Tensor]:
        return {f"square_mean.{index}": tensor for index, tensor in enumerate(self._square_means)}


@final
@OPTIMIZERS.register("adam")
class Adam(Optimizer):
    """Adam with torch.optim.Adam's defaults (betas 0.9 and 0.999, eps 1e-8)."""

    def __init__(self, parameters: Sequence[Tensor], momentum: float) -> None:
        self._parameters = parameters
        self._means = [torch.zeros_like(p) for p in parameters]
        self._square_means = [torch.zeros_like(p) for p in parameters]
        self._scratch = [torch.empty_like(p) for p in parameters]
        self._steps = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        self._steps += 1
        steps = int(self._steps)
        rate, root = learning_rate / (1 - 0.9**steps), math.sqrt(1 - 0.999**steps)
        state = zip(self._parameters, gradients, self._means, self._square_means, self._scratch, strict=True)
        for parameter, gradient, mean, square_mean, scratch in state:
            mean.lerp_(gradient, 0.1)
            square_mean.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            torch.sqrt(square_mean, out=scratch).div_(root).add_(1e-8)
            parameter.addcdiv_(mean, scratch, value=-rate)

    @property
    def state(self) -> dict[str, Tensor]:
        means = {f"mean.{index}": tensor for index, tensor in enumerate(self._means)}
        squares = {f"square_mean.{index}": tensor for index, tensor in enumerate(self._square_means)}
        return {"steps": self._steps, **means, **squares}


@final
@OPTIMIZERS.register("sgd")
class SGD(Optimizer):
    """Stochastic gradient descent with the momentum of torch.optim.SGD."""

    has_momentum = True

    def __init__(self, parameters: Sequence[Tensor], momentum: float) -> None:
        self._parameters = parameters
        self._momentum = momentum
        self._velocities = [torch.zeros_like(p) for p in parameters] if momentum else []

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        directions: Sequence[Tensor] = gradients
        if self._momentum:
            for velocity, gradient in zip(self._velocities, gradients, strict=True):
                velocity.mul_(self._momentum).add_(gradient)
            directions = self._velocities
        for parameter, direction in zip(self._parameters, directions, strict=True):
            parameter.add_(direction, alpha=-learning_rate)

    @property
    def state(self) -> dict[str, Tensor]:
        return {f"velocity.{index}": tensor for index, tensor in enumerate(self._velocities)}
