"""The counts of an evaluation, as exact whole numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ProtocolCounts:
    """The counts of one protocol on one task. One inference chooses the mask for one group of test images.

    `images`: the number of scored images. `correct`: the images that were given the right label.
    `correct_and_right_task`: the correct images whose inference chose a mask of the right task. `decisions`: the number
    of inferences. `right_task`: the inferences that chose a mask of the right task. `confusion`: the number of
    inferences that chose each mask; the keys are mask numbers as text.

    The last two fields are None unless masks are recovered from a Hopfield network. `recovered`: the inferences that
    recovered exactly a mask of the task. `distances`: the mean Hamming distance, in units, to the nearest mask of the
    task, before each step of the descent and after the last step.
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
        """The counts as plain JSON values, without those that are None."""
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
