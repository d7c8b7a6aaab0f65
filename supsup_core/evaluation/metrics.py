"""Metrics of a continual learner: average accuracy, forgetting, and the allocation of masks in NNs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def average_accuracy(accuracies: Sequence[float]) -> float:
    """The mean accuracy over tasks, each with the same weight."""
    return math.fsum(accuracies) / len(accuracies)


def backward_transfer(when_learned: Sequence[float], now: Sequence[float]) -> float:
    """The mean change of a task's accuracy since the task was learned (Lopez-Paz and Ranzato 2017, equation 3).

    when_learned, now: the accuracies of the same tasks, in [0, 1], directly after each task was learned, and now. The
    last learned task is not among them, because no task was learned after it. Raises ValueError if there are no tasks.

    A negative result means that the learner has forgotten. Minus this value is called forgetting. Chaudhry et al. 2018
    (equation 3) instead measure forgetting from the highest accuracy that a task ever had. That definition needs the
    accuracy of every task after every later task.
    """
    changes = [after - before for before, after in zip(when_learned, now, strict=True)]
    if not changes:
        raise ValueError("backward transfer needs a task that was learned before the last task")
    return math.fsum(changes) / len(changes)


class AllocationTally:
    """Counts how masks are allocated in scenario NNs.

    The counts need the task identities, which the learner never sees. A mask belongs to the task for which it was
    allocated. A *duplicate* is a mask allocated for a task that already had a mask. A *wrong reuse* is a segment on
    which a mask of another task was trained.
    """

    def __init__(self) -> None:
        self._owners: dict[int, int] = {}
        self._segments: dict[int, dict[int, int]] = {}
        self.num_segments = 0
        self.duplicates = 0
        self.wrong_reuses = 0
        self.skipped = 0

    def add(self, task: int, mask: int | None, freed: int | None) -> None:
        """Count one segment.

        task: the task of the segment's data. mask: the mask that was trained on the segment, or None if no mask was
        trained. freed: the mask that was deleted to make room for `mask`, or None.
        """
        self.num_segments += 1
        if freed is not None:
            del self._owners[freed], self._segments[freed]
        if mask is None:
            self.skipped += 1
            return
        if mask not in self._owners:
            self.duplicates += task in self._owners.values()
            self._owners[mask] = task
        self.wrong_reuses += self._owners[mask] != task
        counts = self._segments.setdefault(mask, {})
        counts[task] = counts.get(task, 0) + 1

    @property
    def owners(self) -> Mapping[int, int]:
        """The masks in use, each with the task for which it was allocated."""
        return self._owners

    def purity(self) -> float:
        """The purity of the masks in use, in [0, 1]; 1 if there are no masks.

        The main task of a mask is the task that provided the largest number of the mask's segments. Purity is the share
        of segments that come from the main task of their mask, over the segments of all masks in use.
        """
        total = sum(sum(counts.values()) for counts in self._segments.values())
        return sum(max(counts.values()) for counts in self._segments.values()) / total if total else 1.0

    def metrics(self) -> dict[str, float]:
        """The counts as metrics, by name. `untrained_share` is the share of segments on which no mask was trained."""
        return {
            "masks": float(len(self._owners)),
            "duplicates": float(self.duplicates),
            "wrong_reuses": float(self.wrong_reuses),
            "purity": self.purity(),
            "segments_not_trained": float(self.skipped),
            "untrained_share": self.skipped / self.num_segments if self.num_segments else 0.0,
        }
