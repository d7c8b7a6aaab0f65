"""The continual-learning scenarios as rows of data (paper, section 2 and table 1)."""

from __future__ import annotations

from dataclasses import dataclass

from supsup_core.errors import InputError
from supsup_core.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Who knows the task identity, and when.

    `wrong_task_is_wrong`: labels are not shared between tasks, so an answer counts only if the task
    was inferred rightly too.
    """

    name: str
    given_in_training: bool
    given_at_inference: bool
    wrong_task_is_wrong: bool


SCENARIOS: Registry[Scenario] = Registry("scenario")


def _row(name: str, training: bool, inference: bool, wrong: bool) -> Scenario:
    row = Scenario(name=name, given_in_training=training, given_at_inference=inference, wrong_task_is_wrong=wrong)
    return SCENARIOS.register(name)(row)


GG = _row("GG", True, True, False)
GNs = _row("GNs", True, False, False)
GNu = _row("GNu", True, False, True)
NNs = _row("NNs", False, False, False)


def scenario(name: str) -> Scenario:
    """The scenario called `name`; InputError, with the reason, for NNu and for unknown names."""
    if name == "NNu":
        raise InputError(
            "scenario NNu cannot exist: labels that were never seen would reveal the new task, "
            "which makes it GNu; use GNu, or NNs for shared labels"
        )
    return SCENARIOS[name]
