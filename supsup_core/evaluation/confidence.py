"""How sure a mask is of its answers: on its own task's images, where it should be as sure as it is right, and on
those of other tasks, where it should not be sure at all. Inferring the task rests on the second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.methods.learners import Learner

NUM_BINS = 15
"""Bins of equal width that the calibration error sorts answers into, as Guo et al. 2017 do."""


def calibration_error(confidences: Tensor, right: Tensor, num_bins: int = NUM_BINS) -> float:
    """The expected calibration error (Guo et al. 2017, equation 3): mean |accuracy - confidence| over bins of
    confidence, weighted by their images.

    confidences: (images,), the probability of the answer, in [0, 1]. right: (images,), bool.
    """
    bins = (confidences.double() * num_bins).long().clamp(max=num_bins - 1)
    gaps = torch.zeros(num_bins, dtype=torch.float64).index_add_(0, bins, right.double() - confidences.double())
    return float(gaps.abs().sum() / len(right))


def told_apart(own: Tensor, others: Tensor) -> float:
    """The chance that a value drawn from `own` is smaller than one from `others`, ties counting half (the area under
    the ROC curve): 1 where one threshold parts them, 0.5 where they are alike.

    own, others: one-dimensional, finite.
    """
    ordered = others.sort().values
    below = torch.searchsorted(ordered, own, right=False)
    up_to = torch.searchsorted(ordered, own, right=True)
    larger = len(others) - (below + up_to).double() / 2
    return float(larger.mean() / len(others))


@dataclass(frozen=True)
class Confidence:
    """One mask. Over its own task's images: `accuracy`, mean `confidence` (probability of its answer, softmax over the
    labels), `calibration_error`, mean `entropy` (nats, over all outputs: what H compares). `entropy_of_others`: on
    images of other tasks. `told_apart`: by objective, how well its value on one image tells own from others."""

    mask: int
    accuracy: float
    confidence: float
    calibration_error: float
    entropy: float
    entropy_of_others: float
    told_apart: dict[str, float]


@torch.no_grad()
def confidence(
    learner: Learner, mask: int, own: tuple[Tensor, Tensor], others: Tensor, objectives: Sequence[str]
) -> Confidence:
    """Measure a mask on images and labels of its own task, and on images of other tasks.

    own: x (images, *shape) and y (images,). others: (images, *shape). objectives: by name; each is told apart by its
    values, so `superfluous`, which has none, is not to be among them.
    """
    x, y = own
    logits = {"own": learner.logits(x, mask), "others": learner.logits(others, mask)}

    def values(name: str, whose: str) -> Tensor:
        return OBJECTIVES[name](logits[whose][:, None], learner.num_labels)

    sure, answers = torch.softmax(logits["own"][:, : learner.num_labels], 1).max(1)
    right = answers == y
    return Confidence(
        mask=mask,
        accuracy=float(right.double().mean()),
        confidence=float(sure.double().mean()),
        calibration_error=calibration_error(sure, right),
        entropy=float(values("entropy", "own").double().mean()),
        entropy_of_others=float(values("entropy", "others").double().mean()),
        told_apart={name: told_apart(values(name, "own"), values(name, "others")) for name in objectives},
    )
