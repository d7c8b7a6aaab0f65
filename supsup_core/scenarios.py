"""The continual-learning scenarios (paper, section 2 and table 1).

The first letter of a scenario's name says whether the task identity is given (G) or not (N) in training. The second
letter says whether the task identity is given (G) or not (N) at inference. The third letter says whether the tasks
share their labels (s) or not (u). GG has no third letter.
"""

from __future__ import annotations

from dataclasses import dataclass

from supsup_core.errors import InputError
from supsup_core.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A scenario: whether the task identity is given in training and at inference, and what counts as a correct answer.

    `wrong_task_is_wrong`: True if tasks do not share their labels. In such a scenario, an answer is correct only if
    both the label and the inferred task are correct.
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
    """Returns the scenario called `name`. Raises InputError if the name is unknown, or NNu, which cannot exist."""
    if name == "NNu":
        raise InputError(
            "scenario NNu cannot exist: labels that were never seen would reveal a new task, "
            "so the scenario would be GNu; use GNu, or NNs for shared labels"
        )
    return SCENARIOS[name]
