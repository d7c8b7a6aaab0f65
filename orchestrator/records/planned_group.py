"""Defines the recorded plan of a training group, which coordinators, workers and readers of the ledger use.

This module does not import supsup_core or torch, so that ledgers can be read quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from orchestrator.base.plain_values import Node


class GroupSize(NamedTuple):
    """The amount of work in a training group: the number of shards to train and of evaluations to do."""

    shards: int
    evaluations: int


@dataclass(frozen=True)
class Shard:
    """One task to train. `task`: the task's number. `parents`: the keys of the tasks that must be trained first."""

    key: str
    task: int
    parents: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """One task to evaluate after `num_learned` tasks. `run`: index of a run that has its inference settings."""

    key: str
    task: int
    num_learned: int
    run: int


@dataclass(frozen=True)
class PlannedRun:
    """One run of a training group. `name`: the label and the seed. `varied`: the settings that the sweep varies.

    `experiment`: the run's whole config. `inference_id`: the hash of its inference settings. `points[n]`: the keys of
    the evaluations of tasks 0..n-1 after n tasks. In scenario NNs, `points[n]` is empty, because the masks to evaluate
    are only known during training.
    """

    run_id: str
    name: str
    label: str
    varied: Node
    experiment: Node
    inference_id: str
    points: dict[int, tuple[str, ...]]


@dataclass(frozen=True)
class PlannedGroup:
    """A training group. `num_streams`, `segments_per_task`: None except in scenario NNs. `experiment`: the config of
    the run with the most tasks."""

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
