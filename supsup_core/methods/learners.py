"""Learners, which predict the labels of images from the tasks that a method has learned."""

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
    """A mask that was recalled from an associative memory by means of some images. It may differ from all stored masks.

    `labels`: a function from images (batch, *shape) to their labels (batch,) under the recalled mask. `distances`: the
    Hamming distances, in units, to each of k stored masks, (steps + 1, k), int64. They are measured before each step of
    the descent and after the last step.
    """

    labels: Callable[[Tensor], Tensor]
    distances: Tensor


class Learner(ABC):
    """Predicts labels for the tasks learned so far. Mask number i selects what the method stored for task i."""

    num_masks: int
    num_labels: int
    normalises_by_batch: bool = False
    """Whether the logits of an image depend on the other images of its batch (Net.normalises_by_batch)."""

    @abstractmethod
    def logits(self, x: Tensor, mask: int) -> Tensor:
        """Logits (batch, num_outputs) of images x (batch, *shape) under one mask."""

    def predict(self, x: Tensor, mask: int) -> Tensor:
        """The label of each image, (batch,): the real output with the largest logit."""
        return self.logits(x, mask)[:, : self.num_labels].argmax(1)


class SuperposingLearner(Learner):
    """A learner whose masks can be superposed (paper, section 3.3)."""

    @abstractmethod
    def alpha_gradients(self, x: Tensor, subset: Tensor | None, objective: Objective) -> Tensor:
        """d objective / d alpha_i at equal alpha, (D, k), for D groups of images x (D, images, *shape).

        subset: int64 numbers of the masks to superpose, each with a column in the result; None means all.
        """


class RecallingLearner(Learner):
    """A learner that stores its masks in an associative memory (paper, section 3.6)."""

    recall_images: int
    """The smallest number of images that `recall` accepts."""

    @abstractmethod
    def recall(self, x: Tensor, objective: Objective) -> Recalled:
        """Recalls a mask from the memory of all masks, by means of images x (images, *shape) of one task."""


def superposing(learner: Learner) -> SuperposingLearner:
    """Returns the learner. Raises InputError if it cannot superpose its masks."""
    if not isinstance(learner, SuperposingLearner):
        raise InputError("this method cannot superpose its masks; use inference.rule=exhaustive")
    return learner


def recalling(learner: Learner) -> RecallingLearner:
    """Returns the learner. Raises InputError if it has no associative memory."""
    if not isinstance(learner, RecallingLearner):
        raise InputError("this method does not store its masks in a Hopfield network; use another inference.rule")
    return learner


@torch.no_grad()
def accuracy(learner: Learner, task: Task, mask: int) -> float:
    """The share of the task's test images that a mask labels correctly, in [0, 1]."""
    x, y = task.all_test()
    return float((learner.predict(x, mask) == y).double().mean())
