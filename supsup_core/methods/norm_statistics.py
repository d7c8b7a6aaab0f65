"""Measures and loads the batch-normalisation statistics that each task stores beside its mask or weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.errors import CorruptError
from supsup_core.methods.base import Problem
from supsup_core.tasks.base import TrainingPart

NUM_BATCHES = 50
"""The largest number of training batches from which the statistics of a learned task are averaged."""

_KEY = "norm."


def measure_norms(
    problem: Problem, index: int, task: TrainingPart, weights: Sequence[Tensor], prefix: str = ""
) -> dict[str, Tensor]:
    """Returns the batch-normalisation statistics of task `index` as entries of its state; {} if the net stores no
    statistics.

    Draws training batches from the seed, computes the mean and the variance of each batch with the final weights, and
    averages over the batches. PyTorch's running averages would also include batches from before the last weight update.
    """
    if not problem.net.norm_widths():
        return {}
    recipe = problem.recipe
    child = seeding.child_seed(problem.seed, "norms", index)
    order = seeding.batches(child, task.num_train, min(NUM_BATCHES, recipe.num_batches), recipe.batch_size)
    totals: list[Tensor] = []
    for indices in torch.from_numpy(order):
        found = problem.net.observe(weights, task.train_batch(indices)[0].to(problem.device))
        totals = [total + one for total, one in zip(totals, found, strict=True)] if totals else found
    return {f"{prefix}{_KEY}{number}": _compact(total / len(order)) for number, total in enumerate(totals)}


def _compact(statistics: Tensor) -> Tensor:
    """Returns the statistics as float16 if no relative error exceeds 0.001, else unchanged."""
    half = statistics.half()
    return half if torch.allclose(half.float(), statistics, rtol=1e-3, atol=0) else statistics


def load_norms(state: Mapping[str, Tensor], problem: Problem, prefix: str = "") -> list[Tensor]:
    """Loads the statistics that `measure_norms` returned, as float32 tensors on the problem's device.

    Returns the mean and the variance of each batch normalisation, in the order in which the net applies them. Raises
    CorruptError if the statistics do not fit the net.
    """
    widths = [width for width in problem.net.norm_widths() for _ in range(2)]
    found = [state.get(f"{prefix}{_KEY}{number}") for number in range(len(widths))]
    norms = [tensor.to(problem.device).float() for tensor in found if tensor is not None]
    if [len(tensor) for tensor in norms] != widths:
        raise CorruptError("the stored state of a task has no statistics that fit the net")
    return norms
