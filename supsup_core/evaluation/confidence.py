"""The confidence of a mask in its answers, on images of its own task and of other tasks.

On its own task, the confidence should equal the accuracy (calibration). On other tasks the confidence should be low,
since the inference of the task relies on that difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.methods.learners import Learner

NUM_BINS = 15
"""The number of bins of equal width in the calibration error, as in Guo et al. 2017."""


def calibration_error(confidences: Tensor, right: Tensor, num_bins: int = NUM_BINS) -> float:
    """The expected calibration error (Guo et al. 2017, equation 3).

    It is the mean of |accuracy - confidence| over bins of confidence, where each bin is weighted by its number of
    images. confidences: (images,), the probability of the answer, in [0, 1]. right: (images,), bool.
    """
    bins = (confidences.double() * num_bins).long().clamp(max=num_bins - 1)
    gaps = torch.zeros(num_bins, dtype=torch.float64).index_add_(0, bins, right.double() - confidences.double())
    return float(gaps.abs().sum() / len(right))


def auroc(own: Tensor, others: Tensor) -> float:
    """The area under the ROC curve: the probability that a value of `own` is smaller than a value of `others`.

    Ties count half. The area is 1 if a threshold separates the two sets of values, and 0.5 if their distributions are
    the same. own, others: one-dimensional tensors of finite values.
    """
    ordered = others.sort().values
    below = torch.searchsorted(ordered, own, right=False)
    up_to = torch.searchsorted(ordered, own, right=True)
    larger = len(others) - (below + up_to).double() / 2
    return float(larger.mean() / len(others))


@dataclass(frozen=True)
class Confidence:
    """The confidence of one mask on images of its own task and of other tasks.

    `mask`: the mask's number. The next four fields are measured on images of the mask's own task. `accuracy`: the share
    of right answers. `confidence`: the mean probability of the answer, by a softmax over the labels.
    `calibration_error`: the expected calibration error. `entropy`: the mean entropy of the softmax over all outputs, in
    nats (objective H).

    `entropy_of_others`: the mean entropy on images of other tasks. `told_apart`: for each objective, the `auroc`
    of its values on images of the own task against its values on images of other tasks.
    """

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

    own: x (images, *shape) and y (images,). others: (images, *shape). objectives: names of objectives, without
    `superfluous` (G), whose values cannot be compared between masks.
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
        told_apart={name: auroc(values(name, "own"), values(name, "others")) for name in objectives},
    )
