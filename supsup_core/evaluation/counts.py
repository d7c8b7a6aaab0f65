"""The counts of an evaluation, as exact whole numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ProtocolCounts:
    """The counts of one protocol on one task. One inference chooses the mask for one group of test images.

    `images`: the number of scored images. `correct`: the number of images that received the right label.
    `correct_and_right_task`: the number of correct images in groups for which a mask of the right task was chosen.
    `decisions`: the number of inferences. `right_task`: the number of inferences that chose a mask of the right task.
    `confusion`: for each chosen mask, the number of inferences that chose it; the keys are mask numbers as strings.

    `recovered` and `distances` are None unless masks are recovered from a Hopfield network by gradient descent.
    `recovered`: the number of inferences that recovered a mask of the right task exactly. `distances`: the Hamming
    distance, in units, from the current mask of the descent to the nearest mask of the right task, as the mean over all
    inferences. `distances` has one value before each step of the descent, and one after the last step.
    """

    images: int
    correct: int
    correct_and_right_task: int
    decisions: int
    right_task: int
    confusion: dict[str, int]
    recovered: int | None = None
    distances: tuple[float, ...] | None = None

    def to_node(self) -> dict[str, object]:
        """The counts as a dictionary of JSON values. Fields that are None are left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def accuracy(self, wrong_task_is_wrong: bool) -> float:
        """The share of images that are labelled correctly, in [0, 1].

        wrong_task_is_wrong: True if tasks do not share labels. A label from another task's mask then counts as wrong.
        """
        return (self.correct_and_right_task if wrong_task_is_wrong else self.correct) / self.images

    @property
    def task_inference_accuracy(self) -> float:
        """The share of inferences that chose a mask of the right task, in [0, 1]."""
        return self.right_task / self.decisions
