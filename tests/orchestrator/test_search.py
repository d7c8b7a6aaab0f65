"""Searching configurations: what is tried, on which images it is judged, and that a stopped trial stays stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.environment import describe
from orchestrator.launcher import settings_of
from orchestrator.report.search import Trial, best_of, best_sweep
from orchestrator.search import Search
from orchestrator.sweep import Sweep, open_sweep
from orchestrator.trial import drive, open_coordinator
from supsup_core.benchmarks import base_node
from supsup_core.errors import InputError
from tests.orchestrator.scripted import ScriptedPool, state_of

RATES = {"training.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}}
SPACE = {**RATES, "net.num_outputs": [20, 40, 80], "training.batch_size": {"low": 8, "high": 11}}


@given(st.integers(0, 2**32), st.integers(2, 30))
def test_draws_depend_on_the_seed_alone_and_stay_in_the_space(seed: int, count: int) -> None:
    trials = Search(space=SPACE, num_trials=count, seed=seed).trials()
    assert trials == Search(space=SPACE, num_trials=count + 5, seed=seed).trials()[:count]
    assert len({json.dumps(trial) for trial in trials}) == count
    for trial in trials:
        assert 1e-5 <= trial["training.learning_rate"] <= 1e-1
        assert trial["net.num_outputs"] in (20, 40, 80)
        assert trial["training.batch_size"] in (8, 9, 10, 11)


def test_a_range_is_drawn_evenly_by_steps_or_by_factors() -> None:
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


def test_trials_are_judged_at_the_rungs_and_at_the_end() -> None:
    assert Search(space=RATES, num_trials=2, grace_tasks=2, reduction=3).rungs(20) == [2, 6, 18, 20]
    assert Search(space=RATES, num_trials=2, reduction=4).rungs(16) == [1, 4, 16]
    assert Search(space=RATES, num_trials=2, grace_tasks=5).rungs(3) == [3]


def test_more_trials_than_there_are_is_an_error() -> None:
    with pytest.raises(InputError, match=r"num_trials: 7 different ones .* has about 6; ask for fewer"):
        Search(space={"training.learning_rate": [1, 2, 3], "net.num_outputs": [1, 2]}, num_trials=7).trials()


@pytest.fixture
def search(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    """Two trials of eight short tasks."""
    monkeypatch.chdir(tmp_path)
    file = sweep_file(
        benchmark={"name": "permuted", "base": "digits", "num_tasks": 8},
        training={"num_batches": 5},
        search={"space": {"training.learning_rate": [1e-4, 1e-3]}, "held_out": 0.2, "reduction": 2},
        evaluation={"at": [8]},
    )
    return open_sweep(file, [])


@pytest.fixture
def trial(search: Sweep, tmp_path: Path) -> dict[str, Any]:
    """Settings of the first of them, with one worker."""
    return settings_of(search, search.plan()[0], describe(tmp_path), 1)


def test_trials_never_see_the_test_images(search: Sweep) -> None:
    for group in search.plan():
        base = group.experiment.benchmark.source()
        assert base_node(base) == {"name": "held_out", "of": "digits", "share": 0.2, "seed": 0}
        assert group.experiment.evaluation.points(8) == [1, 2, 4, 8]


def test_a_trial_is_judged_before_it_goes_on(trial: dict[str, Any]) -> None:
    pool = ScriptedPool(trial, iter([]))
    coordinator = open_coordinator(trial)
    assert drive(coordinator, pool, lambda progress: None) == "done"
    kinds = "".join(job["kind"][0] for job in pool.done)
    assert kinds == "te" + "t" + "e" * 2 + "tt" + "e" * 4 + "tttt" + "e" * 8
    assert [n for n, _ in coordinator.judged()] == [1, 2, 4, 8]


def test_a_stopped_trial_stays_stopped(trial: dict[str, Any]) -> None:
    first = open_coordinator(trial)
    pool = ScriptedPool(trial, iter([]))
    behind = iter([False] * 5)
    assert drive(first, pool, lambda progress: None, stop=lambda: next(behind, True)) == "stopped"
    state = state_of(trial)
    assert state.status == state.ended == "stopped"
    assert state.stopped is not None
    done = len(pool.done)
    assert 0 < done < 8
    again = ScriptedPool(trial, iter([]))
    assert drive(open_coordinator(trial), again, lambda progress: None) == "stopped"
    assert again.done == []
    assert len(state_of(trial).trained) == len(state.trained)


def test_stopping_what_has_finished_changes_nothing(trial: dict[str, Any]) -> None:
    assert drive(open_coordinator(trial), ScriptedPool(trial, iter([])), lambda progress: None) == "done"
    again = drive(open_coordinator(trial), ScriptedPool(trial, iter([])), lambda progress: None, stop=lambda: True)
    assert again == "done"
    assert state_of(trial).stopped is None


def test_a_search_is_known_by_what_it_searches(search: Sweep) -> None:
    wider = open_sweep(search.file, ["search.held_out=0.3"])
    assert wider.sweep_id != search.sweep_id
    assert math.isclose(wider.config.search.held_out, 0.3) if wider.config.search else False


def test_the_best_is_a_sweep_file_that_tells_no_more_than_it_must(search: Sweep, tmp_path: Path) -> None:
    best = Trial({"training.learning_rate": 3e-4, "net": {"name": "lenet_300_100", "num_outputs": 50}}, 8, 0.9, "done")
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere" / "best.yaml"
    file.write_text(best_sweep(search, best))
    node = yaml.safe_load(file.read_text())
    assert node["training"] == {"num_batches": 5, "learning_rate": 3e-4}
    assert set(node) == {
        "name", "scenario", "benchmark", "net", "training", "inference", "evaluation", "output"
    }  # fmt: skip
    found = open_sweep(file, [])
    assert found.config.output == search.config.output
    (group,) = found.plan()
    assert group.experiment.benchmark.base_name == "digits"
    assert (group.experiment.training.learning_rate, group.experiment.net.num_outputs) == (3e-4, 50)
    assert group.experiment.evaluation.points(8) == [8]


def test_trials_are_ranked_by_how_far_they_came(search: Sweep) -> None:
    ranked = [Trial({}, 8, 0.5, "done"), Trial({}, 8, 0.4, "done"), Trial({}, 4, 0.9, "stopped")]
    assert best_of(ranked) is ranked[0]
    assert best_of([*ranked, Trial({}, 2, 0.9, "interrupted")]) is None
    assert best_of(ranked[2:]) is None


def test_a_space_is_widened_on_the_command_line(search: Sweep) -> None:
    wider = open_sweep(search.file, ["search.space={training.learning_rate: [1, 2, 3]}"])
    assert wider.config.search is not None
    assert wider.config.search.space == {"training.learning_rate": [1, 2, 3]}
