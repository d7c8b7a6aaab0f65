"""Defines the plan of a training group, in the form that ledgers record, and that coordinators and workers receive.

This module does not import supsup_core or torch, so that ledgers can be read quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from orchestrator.base.plain_values import Node


class GroupSize(NamedTuple):
    """The amount of work in a training group: the numbers of shards to train and of evaluations to do."""

    shards: int
    evaluations: int


@dataclass(frozen=True)
class Shard:
    """One task to train. `task`: the task's number. `parents`: the keys of the shards that must be trained first."""

    key: str
    task: int
    parents: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """One task to evaluate after `num_learned` tasks. `run`: the index of a run with the inference settings to use."""

    key: str
    task: int
    num_learned: int
    run: int


@dataclass(frozen=True)
class PlannedRun:
    """One run of a training group. `name`: the label and the seed. `varied`: the run's values of the keys that vary.

    `experiment`: the run's configuration as plain values. `inference_id`: the hash of the inference settings.
    `points[n]`: for evaluation point n, the keys of the evaluations of tasks 0..n-1. In scenario NNs, `points[n]` is
    empty, because the masks to evaluate are only known during training. `when_learned`: for each task, the key of its
    evaluation directly after it was learned, except for the last task of the largest evaluation point. Empty in
    scenario NNs, and in ledgers of earlier versions.
    """

    run_id: str
    name: str
    label: str
    varied: Node
    experiment: Node
    inference_id: str
    points: dict[int, tuple[str, ...]]
    when_learned: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedGroup:
    """A training group. `num_streams`, `segments_per_task`: None except in scenario NNs. `experiment`: the
    configuration of the run with the most tasks, as plain values."""

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
        """Whether the scenario is NNs: no task identity is given in training."""
        return self.segments_per_task is not None

    @cached_property
    def shards_by_key(self) -> dict[str, Shard]:
        """The group's shards by key, in order of tasks."""
        return {shard.key: shard for shard in self.shards}

    @cached_property
    def evaluations_by_key(self) -> dict[str, Evaluation]:
        """The group's evaluations by key, in order of the number of tasks learned."""
        return {evaluation.key: evaluation for evaluation in self.evaluations}
