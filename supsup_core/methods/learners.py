"""Learners, which predict the labels of images with what a method has stored for its tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supsup_core.errors import InputError
from supsup_core.nets.base import Objective
from supsup_core.tasks.base import Task


@dataclass(frozen=True)
class Recalled:
    """A mask that a learner recalled from its associative memory. The recalled mask may differ from all stored masks.

    `labels`: a function from images (batch, *shape) to their labels (batch,) under the recalled mask. `distances`:
    int64 (steps + 1, k), the Hamming distances, in units, from the descent's pattern to each of the k stored masks. Row
    t belongs to the pattern before step t of the descent. The last row belongs to the recalled mask.
    """

    labels: Callable[[Tensor], Tensor]
    distances: Tensor


class Learner(ABC):
    """Predicts labels for the tasks learned so far.

    Mask number i stands for what the method stored for task i, for example a mask or a head.
    """

    num_masks: int
    num_labels: int
    normalises_by_batch: bool = False
    """Whether the logits of an image depend on the other images of its batch (Net.normalises_by_batch)."""

    @abstractmethod
    def logits(self, x: Tensor, mask: int) -> Tensor:
        """Logits (batch, num_outputs) of images x (batch, *shape) under one mask."""

    def predict(self, x: Tensor, mask: int) -> Tensor:
        """Returns the label of each image, (batch,): the real (not superfluous) output with the largest logit."""
        return self.logits(x, mask)[:, : self.num_labels].argmax(1)


class SuperposingLearner(Learner):
    """A learner whose masks can be superposed (paper, section 3.3)."""

    @abstractmethod
    def alpha_gradients(self, x: Tensor, subset: Tensor | None, objective: Objective) -> Tensor:
        """Returns d objective / d alpha_i at alpha_i = 1/k, (D, k), for D groups of images x (D, images, *shape).

        subset: the int64 numbers of the k masks to superpose, in the order of the result's columns; None means all
        masks.
        """


class CanGrow(ABC):
    """Interface of a learner to which tasks can be added. The result equals a new learner for all tasks, but building a
    new learner takes longer."""

    @abstractmethod
    def add(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Adds the next tasks. states: the stored tensors of each new task, in the form of `Learned.state`."""


class RecallingLearner(Learner):
    """A learner that stores its masks in an associative memory (paper, section 3.6)."""

    recall_images: int
    """The smallest number of images that `recall` accepts."""

    @abstractmethod
    def recall(self, x: Tensor, objective: Objective) -> Recalled:
        """Recalls a mask for images x (images, *shape) of one task from the memory of all masks."""


def superposing(learner: Learner) -> SuperposingLearner:
    """Returns `learner` itself. Raises InputError if the learner cannot superpose its masks."""
    if not isinstance(learner, SuperposingLearner):
        raise InputError("this method cannot superpose its masks; use inference.rule=exhaustive")
    return learner


def recalling(learner: Learner) -> RecallingLearner:
    """Returns `learner` itself. Raises InputError if the learner has no associative memory."""
    if not isinstance(learner, RecallingLearner):
        raise InputError("this method does not store its masks in a Hopfield network; use another inference.rule")
    return learner


@torch.no_grad()
def accuracy(learner: Learner, task: Task, mask: int) -> float:
    """Returns the share of the task's test images that the learner labels correctly under one mask, in [0, 1]."""
    x, y = task.all_test()
    return float((learner.predict(x, mask) == y).double().mean())
