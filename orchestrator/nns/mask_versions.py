"""The lineages of the masks of an NNs run: each mask's segments, and the key of the mask version after each segment.

A mask's scores and optimiser state are a pure function of the mask's number and its segments, in order. Every mask
version therefore has a content key. A lost version can be rebuilt from any earlier version. A version that is stored
under its key is not trained again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from orchestrator.base.keys import content_key
from orchestrator.coordination.messages import MaskVersion
from orchestrator.records.rows import EvaluationDue
from orchestrator.spec.experiment import Experiment
from orchestrator.sweeps.training_groups import mask_id
from supsup_core.nns.streams import Segment


@final
@dataclass
class Lineage:
    """The lineage of mask `number`. `segments`: the segments that the mask was trained on, in order. `keys[i]`: the key
    of the version after the first i segments."""

    number: int
    keys: list[str]
    segments: list[Segment] = field(default_factory=list)

    def extend(self, segment: Segment) -> str:
        """Adds the next segment of the mask. Returns the key of the version after this segment."""
        key = content_key({"parent": self.keys[-1], "segment": [segment.task, segment.index]})
        self.segments.append(segment)
        self.keys.append(key)
        return key

    def version(self, stored: Collection[str], length: int | None = None) -> MaskVersion:
        """Returns the instructions to build the version after `length` segments.

        Training starts from the version on disk with the most segments, but at most `length`. If no such version is on
        disk, training starts from the untrained mask. stored: the keys of the versions on disk. length: None means all
        segments.
        """
        end = len(self.segments) if length is None else length
        start = next((i for i in range(end, 0, -1) if self.keys[i] in stored), 0)
        return MaskVersion(
            mask=self.number,
            key=self.keys[end],
            base=self.keys[start] if start else None,
            segments=tuple((segment.task, segment.index) for segment in self.segments[start:end]),
            keys=tuple(self.keys[start + 1 : end + 1]),
        )

    def branch(self) -> Lineage:
        """Returns a copy. Extending the copy does not change this lineage."""
        return Lineage(self.number, list(self.keys), list(self.segments))


@final
class Lineages:
    """The lineages of all masks of a run."""

    def __init__(self, identity: str, segment_batches: int) -> None:
        """identity: `training_groups.mask_id` of the experiment, a hash of all settings that affect masks."""
        self._identity = identity
        self._segment_batches = segment_batches
        self._masks: dict[int, Lineage] = {}
        self._places: dict[str, tuple[int, int]] = {}

    @classmethod
    def of(cls, experiment: Experiment) -> Lineages:
        """Returns empty lineages for an NNs experiment."""
        assert experiment.allocation is not None
        return cls(mask_id(experiment), experiment.allocation.stream.segment_batches)

    def __getitem__(self, number: int) -> Lineage:
        """Returns the lineage of mask `number`. Creates an empty lineage for a new mask."""
        if number not in self._masks:
            fresh = content_key({"masks": self._identity, "segment_batches": self._segment_batches, "mask": number})
            self._masks[number] = Lineage(number, [fresh])
        return self._masks[number]

    def extend(self, number: int, segment: Segment) -> str:
        """Adds the next segment of mask `number`. Returns the key of the version after this segment."""
        lineage = self[number]
        key = lineage.extend(segment)
        self._places[key] = (number, len(lineage.segments))
        return key

    def latest(self, number: int) -> str:
        """Returns the key of the latest version of mask `number`."""
        return self[number].keys[-1]

    def knows(self, key: str) -> bool:
        """Returns whether any mask has a version with this key. Does not count the versions of untrained masks."""
        return key in self._places

    def find(self, key: str, stored: Collection[str]) -> MaskVersion:
        """Returns the instructions to build the version `key` (see `Lineage.version`).

        stored: the keys of the versions on disk. Raises KeyError if no mask has a version with this key.
        """
        number, length = self._places[key]
        return self[number].version(stored, length)


def evaluation_due(
    n: int, tasks: Sequence[int], current: Mapping[int, str], owners: Mapping[int, int]
) -> EvaluationDue:
    """Returns the ledger event of evaluation point n, at which all tasks met are evaluated with all masks in use.

    The event also says which masks belong to each task. tasks: the numbers of the tasks met. current: maps each mask in
    use to the key of its version. owners: maps each mask in use to the task that the mask was allocated for.
    """
    numbers = sorted(current)
    right = [tuple(place for place, number in enumerate(numbers) if owners[number] == task) for task in tasks]
    return EvaluationDue(n, tuple(tasks), tuple(numbers), tuple(current[number] for number in numbers), tuple(right))
