"""Objectives, which inference minimises to find the right mask (paper, sections 3.3 and 3.5, and its appendix).

An objective takes logits (..., images, num_outputs) and num_labels, and returns its mean over the images, of shape
(...). It is differentiable in the logits, since one-shot and binary inference use its gradient. The paper calls
`entropy` H and `superfluous` G (see its appendix on superfluous neurons).
"""

from __future__ import annotations

import torch
from torch import Tensor

from supsup_core.nets.base import Objective
from supsup_core.registry import Registry

OBJECTIVES: Registry[Objective] = Registry("objective")


@OBJECTIVES.register("entropy", "H")
def entropy(logits: Tensor, num_labels: int) -> Tensor:
    """H: the entropy of softmax over all outputs (equation 4)."""
    log_p = torch.log_softmax(logits, -1)
    return -(log_p.exp() * log_p).sum(-1).mean(-1)


@OBJECTIVES.register("superfluous", "G")
def superfluous(logits: Tensor, num_labels: int) -> Tensor:
    """G: logsumexp of all outputs. The real outputs are detached, so only superfluous neurons have a gradient."""
    real = logits[..., :num_labels].detach()
    return torch.cat([real, logits[..., num_labels:]], -1).logsumexp(-1).mean(-1)


SLOPE_ONLY = frozenset({superfluous})
"""Objectives that are compared by their gradient only. The value of G depends on the real neurons, which are largest
under the right mask, so a comparison of values would choose a wrong mask."""


@OBJECTIVES.register("max_logit")
def max_logit(logits: Tensor, num_labels: int) -> Tensor:
    """Minus the largest real logit. Unlike a softmax probability, this confidence cannot saturate."""
    return -logits[..., :num_labels].amax(-1).mean(-1)


@OBJECTIVES.register("energy")
def energy(logits: Tensor, num_labels: int) -> Tensor:
    """The free energy of the real outputs: minus their logsumexp. It is low on images like the training images."""
    return -logits[..., :num_labels].logsumexp(-1).mean(-1)
