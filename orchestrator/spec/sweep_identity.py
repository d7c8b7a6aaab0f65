"""Computes the part of a sweep's config that determines the sweep's id."""

from __future__ import annotations

from orchestrator.base.plain_values import Node
from orchestrator.spec.experiment import EvaluationConfig
from orchestrator.spec.sweep_config import SweepConfig
from supsup_core.evaluation.protocol import Inference
from supsup_core.later_fields import identity_fields, without_later_defaults
from supsup_core.nns.allocator import Budget
from supsup_core.nns.streams import Stream
from supsup_core.training.loop import TrainingRecipe

_SECTIONS = {
    "training": TrainingRecipe,
    "inference": Inference,
    "evaluation": EvaluationConfig,
    "stream": Stream,
    "budget": Budget,
}
"""The classes of the sections that a SweepConfig holds as plain values with all defaults."""


def sweep_identity(config: SweepConfig) -> Node:
    """Returns a config as plain values, without the fields that a later version added and that have their defaults.

    A sweep that an earlier version of this program created therefore keeps its id.
    """
    node: Node = identity_fields(config)
    return node | {key: without_later_defaults(schema, node[key]) for key, schema in _SECTIONS.items()}
