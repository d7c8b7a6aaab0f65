"""What an evaluation counted, as exact whole numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ProtocolCounts:
    """The counts of one protocol on one task.

    `images`: that were answered. `correct`: answered with the right label; `correct_and_right_task`: those of them
    whose decision chose a mask of the right task. `decisions`: taken; `right_task`: those that chose such a mask.
    `confusion`: decisions by the number of the mask they chose, as text. Where a mask is recovered from a memory,
    `recovered`: decisions that ended exactly at a mask of the task, and `distances`: how many units they were from the
    nearest of them before each step and at the end, on average; else None.
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
        """The share of images answered rightly, in [0, 1].

        wrong_task_is_wrong: labels are not shared between tasks, so an answer by another task's mask is wrong.
        """
        return (self.correct_and_right_task if wrong_task_is_wrong else self.correct) / self.images

    @property
    def task_inference_accuracy(self) -> float:
        """The share of decisions that chose a mask of the right task, in [0, 1]."""
        return self.right_task / self.decisions
