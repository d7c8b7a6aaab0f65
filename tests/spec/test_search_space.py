"""The configurations that a search tries, and the rungs (numbers of tasks) after which it compares trials."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.base.plain_values import Node
from orchestrator.spec.search_space import Search
from supsup_core.errors import InputError

RATES = {"training.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}}
SPACE = {**RATES, "net.num_outputs": [20, 40, 80], "training.batch_size": {"low": 8, "high": 11}}


@given(st.integers(0, 2**32), st.integers(2, 30))
def test_draws_depend_only_on_the_seed_and_stay_in_the_space(seed: int, count: int) -> None:
    trials = Search(space=SPACE, num_trials=count, seed=seed).trials()
    assert trials == Search(space=SPACE, num_trials=count + 5, seed=seed).trials()[:count]
    assert len({json.dumps(trial) for trial in trials}) == count
    for trial in trials:
        assert 1e-5 <= trial["training.learning_rate"] <= 1e-1
        assert trial["net.num_outputs"] in (20, 40, 80)
        assert trial["training.batch_size"] in (8, 9, 10, 11)


def test_a_range_is_drawn_uniformly_or_log_uniformly() -> None:
    rates = [trial["training.learning_rate"] for trial in Search(space=RATES, num_trials=2000).trials()]
    assert sum(rate < 1e-3 for rate in rates) == pytest.approx(1000, abs=90)
    steps = Search(space={"training.learning_rate": {"low": 1.0, "high": 3.0}}, num_trials=180).trials()
    assert sum(trial["training.learning_rate"] for trial in steps) / 180 == pytest.approx(2, abs=0.15)
    sizes = Search(space={"training.batch_size": {"low": 8, "high": 11}}, num_trials=4).trials()
    assert sorted(trial["training.batch_size"] for trial in sizes) == [8, 9, 10, 11]


def test_without_a_number_of_trials_every_combination_is_tried() -> None:
    space = {"training.learning_rate": [1e-4, 1e-3], "net.num_outputs": [20, 40, 80]}
    trials = Search(space=space).trials()
    assert len(trials) == 6
    assert {trial["net.num_outputs"] for trial in trials} == {20, 40, 80}


def test_trials_are_compared_at_the_rungs_and_at_the_end() -> None:
    assert Search(space=RATES, num_trials=2, grace_tasks=2, reduction=3).rungs(20) == [2, 6, 18, 20]
    assert Search(space=RATES, num_trials=2, reduction=4).rungs(16) == [1, 4, 16]
    assert Search(space=RATES, num_trials=2, grace_tasks=5).rungs(3) == [3]


def test_more_trials_than_combinations_are_refused() -> None:
    with pytest.raises(InputError, match=r"num_trials: 7 different .* has only about 6; lower search.num_trials"):
        Search(space={"training.learning_rate": [1, 2, 3], "net.num_outputs": [1, 2]}, num_trials=7).trials()


def test_the_draws_of_a_space_never_change() -> None:
    """Golden values: a resumed search finds its trials by their values, so other draws would start a new search."""
    drawn = [tuple(trial.values()) for trial in Search(space=SPACE, num_trials=3, seed=5).trials()]
    assert drawn == [(0.000137, 80, 8), (4.59e-05, 80, 9), (2.28e-05, 80, 8)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {}}, "space: is empty; name at least one key to search"),
        ({"space": {"benchmark.num_tasks": [1, 2]}}, "space.benchmark.num_tasks: cannot be searched; searchable keys"),
        ({"space": {"net.width": 3}}, "space.net.width: must be a list of choices, or a range such as"),
        ({"space": {"net.width": [1, 1]}}, r"space.net.width: the list \[1, 1\] contains a value twice"),
        ({"space": {"net.width": {"low": 1, 2: 3}}}, "space.net.width.2: unknown key"),
        ({"space": {"net.width": {"low": 1, "high": True}}}, "space.net.width.high: must be a finite number, not True"),
        ({"space": {"net.width": {"low": 1, "high": 2, "log": 1}}}, "space.net.width.log: must be true or false"),
        (
            {"space": {"net.width": {"low": 1, "high": 2}}},
            "num_trials: is missing; set how many configurations to draw, because search.space.net.width",
        ),
        ({"num_trials": 1}, "num_trials: must be at least 2, not 1"),
        ({"held_out": 1.0}, "held_out: must be a share of the training images between 0 and 1, not 1.0"),
    ],
)
def test_an_invalid_search_is_refused(changes: Node, message: str) -> None:
    arguments: dict[str, Any] = {"space": {"net.width": [1, 2]}, **changes}
    with pytest.raises(InputError, match=message):
        Search(**arguments)
