"""Parametrizations, which hold a layer's trained tensors and compute the layer's weight from these tensors.

A method trains a list of parametrizations, one for each layer of the net, with `training.loop.Step`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from supsup_core.masks.edge_popup import MaskRule


class Parametrization(ABC):
    """Computes a layer's weight from trained tensors, and the tensors' gradients from the weight's gradient."""

    @property
    @abstractmethod
    def tensors(self) -> list[Tensor]:
        """The trained float32 tensors, which the optimiser updates in place."""

    @abstractmethod
    def weight(self) -> Tensor:
        """Returns the layer's weight for the current `tensors`, perhaps in a buffer that the next call overwrites."""

    @abstractmethod
    def gradients(self, gradient: Tensor) -> list[Tensor]:
        """Returns the gradient of each tensor in `tensors`.

        gradient: the gradient of the layer's weight. This method may overwrite `gradient`.
        """


@final
class Fixed(Parametrization):
    """A weight that is not trained."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    @property
    def tensors(self) -> list[Tensor]:
        return []

    def weight(self) -> Tensor:
        return self._weight

    def gradients(self, gradient: Tensor) -> list[Tensor]:
        return []


@final
class Dense(Parametrization):
    """A weight that is trained directly."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    @property
    def tensors(self) -> list[Tensor]:
        return [self._weight]

    def weight(self) -> Tensor:
        return self._weight

    def gradients(self, gradient: Tensor) -> list[Tensor]:
        return [gradient]


@final
class Anchored(Parametrization):
    """A weight that is trained directly, with the penalty strength / 2 * importance * (weight - anchor)^2."""

    def __init__(self, weight: Tensor, anchor: Tensor, importance: Tensor, strength: float) -> None:
        self._weight = weight
        self._anchor = anchor
        self._importance = importance
        self._strength = strength

    @property
    def tensors(self) -> list[Tensor]:
        return [self._weight]

    def weight(self) -> Tensor:
        return self._weight

    def gradients(self, gradient: Tensor) -> list[Tensor]:
        return [gradient.addcmul_(self._importance, self._weight - self._anchor, value=self._strength)]


@final
class Scored(Parametrization):
    """A fixed weight times a mask that is computed from trained scores (edge-popup; paper, section 3.1)."""

    def __init__(self, weight: Tensor, scores: Tensor, rule: MaskRule) -> None:
        self._weight = weight
        self._scores = scores
        self._rule = rule
        self._effective = torch.empty_like(scores)

    @property
    def tensors(self) -> list[Tensor]:
        return [self._scores]

    def weight(self) -> Tensor:
        return self._rule.mask(self._scores, self._effective).mul_(self._weight)

    def gradients(self, gradient: Tensor) -> list[Tensor]:
        return [self._rule.to_scores(self._scores, gradient.mul_(self._weight))]


@final
class RankOne(Parametrization):
    """A weight times the outer product of two trained vectors (BatchE, Wen et al. 2020, equation 1).

    weight: (out, in, ...). outputs: the vector for the layer's outputs, (out,). inputs: the vector for the layer's
    inputs, (in,). train_weight: True if the weight is trained too.
    """

    def __init__(self, weight: Tensor, outputs: Tensor, inputs: Tensor, train_weight: bool) -> None:
        self._weight = weight
        self._outputs = outputs
        self._inputs = inputs
        self._train_weight = train_weight
        self._tail = (1,) * (weight.dim() - 2)

    @property
    def tensors(self) -> list[Tensor]:
        return [self._outputs, self._inputs, *([self._weight] if self._train_weight else [])]

    def _outer(self) -> Tensor:
        outer: Tensor = self._outputs.view(-1, 1, *self._tail) * self._inputs.view(1, -1, *self._tail)
        return outer

    def weight(self) -> Tensor:
        return self._weight * self._outer()

    def gradients(self, gradient: Tensor) -> list[Tensor]:
        per_pair = (gradient * self._weight).flatten(2).sum(2) if self._tail else gradient * self._weight
        found = [per_pair @ self._inputs, per_pair.t() @ self._outputs]
        return [*found, gradient.mul_(self._outer())] if self._train_weight else found
