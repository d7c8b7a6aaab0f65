"""The confidence of a mask in its answers, on images of its own task and of other tasks.

On images of the mask's own task, the confidence should equal the accuracy (calibration). On images of other tasks, the
confidence should be low: task inference recognises the right mask by its higher confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.methods.learners import Learner

NUM_BINS = 15
"""The calibration error divides the confidences into this many bins of equal width (Guo et al. 2017)."""


def calibration_error(confidences: Tensor, right: Tensor, num_bins: int = NUM_BINS) -> float:
    """The expected calibration error (Guo et al. 2017, equation 3).

    The error is the mean of |accuracy - confidence| over bins of confidence, where each bin is weighted by its number
    of images. confidences: (images,), the probability of each image's answer, in [0, 1]. right: (images,), bool,
    whether each answer is right.
    """
    bins = (confidences.double() * num_bins).long().clamp(max=num_bins - 1)
    gaps = torch.zeros(num_bins, dtype=torch.float64).index_add_(0, bins, right.double() - confidences.double())
    return float(gaps.abs().sum() / len(right))


def auroc(own: Tensor, others: Tensor) -> float:
    """The area under the ROC curve: the probability that a value of `own` is smaller than a value of `others`.

    Ties count half. The area is 1 if all values of `own` are smaller than all values of `others`, and 0.5 if both have
    the same distribution. own, others: one-dimensional tensors of finite values.
    """
    ordered = others.sort().values
    below = torch.searchsorted(ordered, own, right=False)
    up_to = torch.searchsorted(ordered, own, right=True)
    larger = len(others) - (below + up_to).double() / 2
    return float(larger.mean() / len(others))


@dataclass(frozen=True)
class Confidence:
    """The confidence of one mask on images of its own task and of other tasks.

    `mask`: the mask's number. `accuracy`, `confidence`, `calibration_error` and `entropy` are measured on images of the
    mask's own task. `accuracy`: the share of right answers. `confidence`: the mean probability of the answer, by a
    softmax over the real labels only. `calibration_error`: the expected calibration error. `entropy`: the mean entropy
    of the softmax over all outputs, in nats (objective H).

    `entropy_of_others`: the mean entropy on images of other tasks. `told_apart`: for each objective, the `auroc` of two
    sets of values: those on images of the mask's own task, and those on images of other tasks.
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
    """Measures the confidence of a mask on images of its own task, and on images of other tasks.

    own: images (images, *shape) and labels (images,) of the mask's own task. others: images of other tasks, (images,
    *shape). objectives: names of objectives, without `superfluous` (G), whose values do not indicate the right mask.
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
