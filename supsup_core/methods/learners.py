"""Learners: what a method can answer after it has learned some tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from supsup_core.errors import InputError
from supsup_core.nets.base import Objective
from supsup_core.tasks.base import Task


@dataclass(frozen=True)
class Recalled:
    """What images led to in an associative memory of all masks.

    `labels`: labels (batch,) of images (batch, *shape) under what was recalled, which may be no mask that is stored.
    `distances`: in how many units it differs from each mask, before each step and at the end, (steps + 1, k), int64.
    """

    labels: Callable[[Tensor], Tensor]
    distances: Tensor


class Learner(ABC):
    """Answers for the tasks learned so far; mask i is whatever the method keeps for task i."""

    num_masks: int
    num_labels: int
    normalises_by_batch: bool = False
    """Whether an answer depends on the other images it is asked for with (Net.normalises_by_batch)."""
    recall_images: int = 0
    """How many images `recall` takes at least."""

    @abstractmethod
    def logits(self, x: Tensor, mask: int) -> Tensor:
        """Logits (batch, num_outputs) of images x (batch, *shape) with one mask."""

    def alpha_gradients(self, x: Tensor, subset: Tensor | None, objective: Objective) -> Tensor:
        """d objective / d alpha_i at equal alpha, for D decisions: x (D, images, *shape) to (D, k).

        `subset` (int64 mask numbers) superposes only those, and the answer has one column for each.
        InputError when the method has no superposition; such methods set `Method.superposes` to False.
        """
        raise InputError("this method cannot superpose its masks; use inference.rule=exhaustive")

    def recall(self, x: Tensor, objective: Objective) -> Recalled:
        """Where images x (images, *shape) of one task lead to in an associative memory of all masks.

        InputError when the method has no such memory; the others set `Method.recall_images`.
        """
        raise InputError("this method keeps its masks in no Hopfield network; use another inference.rule")

    def predict(self, x: Tensor, mask: int) -> Tensor:
        """Labels (batch,) among the real outputs."""
        return self.logits(x, mask)[:, : self.num_labels].argmax(1)


@torch.no_grad()
def accuracy(learner: Learner, task: Task, mask: int) -> float:
    """The share of the task's test images that a mask labels correctly, in [0, 1]."""
    x, y = task.all_test()
    return float((learner.predict(x, mask) == y).double().mean())
