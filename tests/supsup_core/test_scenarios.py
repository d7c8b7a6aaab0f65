"""The scenarios, and NNu, which cannot exist."""

import pytest

from supsup_core.errors import InputError
from supsup_core.scenarios import SCENARIOS, scenario


def test_the_name_of_a_scenario_says_when_the_task_is_given() -> None:
    for name in SCENARIOS.names():
        row = scenario(name)
        assert (row.name, row.given_in_training, row.given_at_inference) == (name, name[0] == "G", name[1] == "G")
        assert row.wrong_task_is_wrong == (name[2:] == "u")


def test_nnu_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match="would reveal a new task"):
        scenario("NNu")
