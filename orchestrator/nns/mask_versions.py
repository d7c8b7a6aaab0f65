"""What each mask of an NNs run has been trained on, and the names of what it was after each segment.

A mask's scores and optimiser state are a pure function of its number and the segments it was trained on, in
order. So every version of a mask has a content key, one that is lost can be made again from any earlier one,
and a version found under its key need not be made at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.base.keys import content_key
from orchestrator.spec.experiment import Experiment
from orchestrator.sweeps.training_groups import mask_id
from supsup_core.nns.streams import Segment

Version = dict[str, Any]
"""How to have one version: mask, key, base (the key of an earlier version that is stored, or None for a fresh
mask), segments ([task, index] pairs since the base) and keys (after each of them)."""


@dataclass
class Lineage:
    """One mask: `keys[i]` names what it was after its first i segments."""

    number: int
    keys: list[str]
    segments: list[Segment] = field(default_factory=list)

    def extend(self, segment: Segment) -> str:
        """Note that it trains on one more segment; the key of what it then is."""
        key = content_key({"parent": self.keys[-1], "segment": [segment.task, segment.index]})
        self.segments.append(segment)
        self.keys.append(key)
        return key

    def version(self, stored: Collection[str], length: int | None = None) -> Version:
        """How to have the mask after `length` segments (None: all), from the latest version that is stored."""
        end = len(self.segments) if length is None else length
        start = next((i for i in range(end, 0, -1) if self.keys[i] in stored), 0)
        return {
            "mask": self.number,
            "key": self.keys[end],
            "base": self.keys[start] if start else None,
            "segments": [[s.task, s.index] for s in self.segments[start:end]],
            "keys": self.keys[start + 1 : end + 1],
        }


class Lineages:
    """The lineages of all masks of a run."""

    def __init__(self, identity: str, segment_batches: int) -> None:
        """identity: plan.mask_id, what determines a mask's training beside its number and data."""
        self._identity = identity
        self._segment_batches = segment_batches
        self._masks: dict[int, Lineage] = {}
        self._places: dict[str, tuple[int, int]] = {}

    @classmethod
    def of(cls, experiment: Experiment) -> Lineages:
        """The lineages of an NNs experiment, all empty."""
        assert experiment.allocation is not None
        return cls(mask_id(experiment), experiment.allocation.stream.segment_batches)

    def __getitem__(self, number: int) -> Lineage:
        """The lineage of a mask; a new one for a mask not heard of before."""
        if number not in self._masks:
            fresh = content_key({"masks": self._identity, "segment_batches": self._segment_batches, "mask": number})
            self._masks[number] = Lineage(number, [fresh])
        return self._masks[number]

    def extend(self, number: int, segment: Segment) -> str:
        """Note that a mask trains on one more segment; the key of what it then is."""
        lineage = self[number]
        key = lineage.extend(segment)
        self._places[key] = (number, len(lineage.segments))
        return key

    def knows(self, key: str) -> bool:
        """Whether some mask was once the version of this key."""
        return key in self._places

    def find(self, key: str, stored: Collection[str]) -> Version:
        """How to have the version of this key. KeyError when no mask ever was that."""
        number, length = self._places[key]
        return self[number].version(stored, length)


def due_point(n: int, tasks: Sequence[int], current: Mapping[int, str], owners: Mapping[int, int]) -> dict[str, Any]:
    """What an evaluation point tests: all masks as they are, on all tasks met, and which masks belong to each.

    current: live masks to the keys of their versions; owners: live masks to their tasks. The masks are in
    ascending order of their numbers, and `right` names those of each task by their places in it.
    """
    numbers = sorted(current)
    right = [[place for place, number in enumerate(numbers) if owners[number] == task] for task in tasks]
    keys = [current[number] for number in numbers]
    return {"num_learned": n, "tasks": list(tasks), "numbers": numbers, "keys": keys, "right": right}
