"""The learner of methods that have a weight of each layer for each task."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from supsup_core.methods.base import Problem, States
from supsup_core.methods.learners import Learner
from supsup_core.methods.norm_statistics import load_norms

_IMAGES_AT_ONCE = 1024
"""Images of channels that go through a net together; flat ones need no bound."""


class WeightsLearner(Learner):
    """A learner whose answer for a task is the net's, with weights and statistics of the task's own."""

    def __init__(self, problem: Problem, states: States) -> None:
        self._problem = problem
        self._norms = [load_norms(state, problem) for state in states]
        self._last: tuple[int, list[Tensor]] | None = None
        self.num_masks = len(states)
        self.num_labels = problem.num_labels
        self.normalises_by_batch = problem.net.normalises_by_batch

    @abstractmethod
    def weights(self, mask: int) -> list[Tensor]:
        """The net's weights for one task, on the problem's device."""

    def logits(self, x: Tensor, mask: int) -> Tensor:
        if self._last is None or self._last[0] != mask:
            self._last = (mask, [*self.weights(mask), *self._norms[mask]])
        weights = self._last[1]
        parts = torch.split(x, _IMAGES_AT_ONCE if x.dim() == 4 else max(1, len(x)))
        return torch.cat([self._problem.net.forward(weights, p.to(self._problem.device)).to(x.device) for p in parts])
