"""What the right mask makes small (paper, sections 3.3 and 3.5; appendix on superfluous neurons).

An objective takes logits (..., images, num_outputs) and num_labels, and returns the mean over the
images, (...). It must be differentiable in the logits: one-shot and binary inference use its slope.
Config names are the full words; H and G are the paper's symbols for the first two.
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
    """G: logsumexp of all outputs with the real ones detached, so only superfluous neurons have a slope."""
    real = logits[..., :num_labels].detach()
    return torch.cat([real, logits[..., num_labels:]], -1).logsumexp(-1).mean(-1)


SLOPE_ONLY = frozenset({superfluous})
"""Objectives that only their slope tells apart: the value of G is that of the real neurons it detaches,
which are largest under the right mask, so that comparing values would choose a wrong one."""


@OBJECTIVES.register("max_logit")
def max_logit(logits: Tensor, num_labels: int) -> Tensor:
    """Minus the largest real logit: confidence without the softmax that saturates it."""
    return -logits[..., :num_labels].amax(-1).mean(-1)


@OBJECTIVES.register("energy")
def energy(logits: Tensor, num_labels: int) -> Tensor:
    """The free energy of the real outputs, minus their logsumexp: low for data like the training data."""
    return -logits[..., :num_labels].logsumexp(-1).mean(-1)
