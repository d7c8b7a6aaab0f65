"""A training group as its plan was recorded: all that coordinators, workers and readers of a ledger need to know of it.

Nothing here needs the science, so a ledger is read without loading torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from orchestrator.base.plain_values import Node


class GroupSize(NamedTuple):
    """How much there is to do in a training group: shards to train, evaluations to make."""

    shards: int
    evaluations: int


@dataclass(frozen=True)
class Shard:
    """One task to train: its content key, its number, and the keys of the tasks it builds on."""

    key: str
    task: int
    parents: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """One task to evaluate after `num_learned` tasks. `run`: the place of a run of the group with this inference."""

    key: str
    task: int
    num_learned: int
    run: int


@dataclass(frozen=True)
class PlannedRun:
    """One run of a training group. `points[n]`: the keys of its evaluations of tasks 0..n-1 after n tasks; in NNs no
    keys, for which masks there will be is decided on the way."""

    run_id: str
    name: str
    label: str
    varied: Node
    experiment: Node
    inference_id: str
    points: dict[int, tuple[str, ...]]


@dataclass(frozen=True)
class PlannedGroup:
    """A training group. `num_streams`, `segments_per_task`: in NNs, else None. `experiment`: of its longest run."""

    group_id: str
    seed: int
    size: GroupSize
    num_streams: int | None
    segments_per_task: int | None
    experiment: Node
    shards: tuple[Shard, ...]
    evaluations: tuple[Evaluation, ...]
    runs: tuple[PlannedRun, ...]

    @property
    def is_nns(self) -> bool:
        """Whether no task identity is given in training."""
        return self.segments_per_task is not None

    @cached_property
    def shards_by_key(self) -> dict[str, Shard]:
        """Its shards by their keys, in order of tasks."""
        return {shard.key: shard for shard in self.shards}

    @cached_property
    def evaluations_by_key(self) -> dict[str, Evaluation]:
        """Its evaluations by their keys, in order of the tasks learned."""
        return {evaluation.key: evaluation for evaluation in self.evaluations}
