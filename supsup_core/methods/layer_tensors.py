"""Names the tensors of the layers in a task's stored state, and loads these tensors from a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from supsup_core.errors import CorruptError
from supsup_core.methods.base import Problem
from supsup_core.nets.base import Layer

if TYPE_CHECKING:
    from torch import Tensor


def name_layer_tensors(prefix: str, layers: Sequence[Layer], tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Returns a dict {prefix + layer.name: tensor}, as entries of a task's state, with one tensor for each layer."""
    return {f"{prefix}{layer.name}": tensor for layer, tensor in zip(layers, tensors, strict=True)}


def load_layer_tensors(
    state: Mapping[str, Tensor], prefix: str, problem: Problem, layers: Sequence[Layer]
) -> list[Tensor]:
    """Returns the tensors that `name_layer_tensors` named, in the order of `layers`, on the problem's device.

    Raises CorruptError if a layer's tensor is missing or does not have the layer's shape.
    """
    found = []
    for layer in layers:
        tensor = state.get(f"{prefix}{layer.name}")
        if tensor is None or tensor.shape != layer.shape:
            raise CorruptError(f"the stored state of a task has no {prefix}{layer.name} of shape {layer.shape}")
        found.append(tensor.to(problem.device))
    return found
