"""Objectives, which inference minimises to find the right mask (paper, sections 3.3 and 3.5, and its appendix).

An objective takes logits (..., images, num_outputs) and num_labels, and returns the mean of its values over the images,
of shape (...). The result is differentiable with respect to the logits, since one-shot and binary inference use the
gradient. The paper calls `entropy` H and `superfluous` G (see its appendix on superfluous neurons).
"""

from __future__ import annotations

import torch
from torch import Tensor

from supsup_core.nets.base import Objective
from supsup_core.registry import Registry

OBJECTIVES: Registry[Objective] = Registry("objective")


@OBJECTIVES.register("entropy", "H")
def entropy(logits: Tensor, num_labels: int) -> Tensor:
    """H: the entropy of the softmax over all outputs (equation 4)."""
    log_p = torch.log_softmax(logits, -1)
    return -(log_p.exp() * log_p).sum(-1).mean(-1)


@OBJECTIVES.register("superfluous", "G")
def superfluous(logits: Tensor, num_labels: int) -> Tensor:
    """G: logsumexp of all outputs. The real outputs (the first `num_labels`) are detached, so they have no gradient."""
    real = logits[..., :num_labels].detach()
    return torch.cat([real, logits[..., num_labels:]], -1).logsumexp(-1).mean(-1)


SLOPE_ONLY = frozenset({superfluous})
"""Objectives whose gradient indicates the right mask, but whose value does not. The value of G contains the real
outputs, which are largest under the right mask, so the smallest value belongs to a wrong mask."""


@OBJECTIVES.register("max_logit")
def max_logit(logits: Tensor, num_labels: int) -> Tensor:
    """Minus the largest logit of the real outputs. Unlike a softmax probability, this logit cannot saturate."""
    return -logits[..., :num_labels].amax(-1).mean(-1)


@OBJECTIVES.register("energy")
def energy(logits: Tensor, num_labels: int) -> Tensor:
    """The free energy of the real outputs: minus their logsumexp.

    The free energy is low on images similar to training images.
    """
    return -logits[..., :num_labels].logsumexp(-1).mean(-1)
