"""A learner that gets a list of weights for each task from a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from supsup_core.methods.base import Problem, States
from supsup_core.methods.learners import Learner
from supsup_core.methods.norm_statistics import load_norms

_IMAGES_AT_ONCE = 1024
"""The largest number of images (channels, height, width) in one forward pass, which bounds memory. A batch of flat
images is not split, because flat images are small."""


@final
class WeightsLearner(Learner):
    """Predicts labels by the net's forward pass, with the weights and batch-normalisation statistics of one task.

    weights_of: a function from a mask's number to the net's weights on the problem's device. The learner caches the
    weights of the last mask, and calls the function again only for a different mask.
    """

    def __init__(self, problem: Problem, states: States, weights_of: Callable[[int], list[Tensor]]) -> None:
        self._problem = problem
        self._norms: list[list[Tensor]] = []
        self._last: tuple[int, list[Tensor]] | None = None
        self.weights_of = weights_of
        self.num_masks = 0
        self.add(states)
        self.num_labels = problem.num_labels
        self.normalises_by_batch = problem.net.normalises_by_batch

    def add(self, states: States) -> None:
        """Adds the next tasks. `weights_of` must know their weights already."""
        self._norms += [load_norms(state, self._problem) for state in states]
        self.num_masks += len(states)

    def logits(self, x: Tensor, mask: int) -> Tensor:
        if self._last is None or self._last[0] != mask:
            self._last = (mask, [*self.weights_of(mask), *self._norms[mask]])
        weights = self._last[1]
        parts = torch.split(x, _IMAGES_AT_ONCE if x.dim() == 4 else max(1, len(x)))
        return torch.cat([self._problem.net.forward(weights, p.to(self._problem.device)).to(x.device) for p in parts])
