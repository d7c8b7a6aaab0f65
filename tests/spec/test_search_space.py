"""Searching configurations: what is tried, on which images it is judged, and that a stopped trial stays stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.base.environment import describe
from orchestrator.coordination.control_files import Asked
from orchestrator.execution.drive import drive, open_coordinator
from orchestrator.execution.launch import settings_of
from orchestrator.results.report.search import Trial, best_of, best_sweep, trials_of
from orchestrator.results.status import sweep_status
from orchestrator.spec.search_space import Search
from orchestrator.sweeps.sweep import open_sweep
from orchestrator.sweeps.sweep import Sweep
from supsup_core.datasets import base_node
from supsup_core.errors import InputError
from tests.scripted import ScriptedPool, state_of

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
    with pytest.raises(InputError, match=r"num_trials: 7 different configurations .* has about 6; set it lower"):
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
    assert drive(first, pool, lambda progress: None, Asked(stop=lambda: next(behind, True))) == "stopped"
    state = state_of(trial)
    assert state.status == state.ended == "stopped"
    assert state.stopped is not None
    done = len(pool.done)
    assert 0 < done < 8
    again = ScriptedPool(trial, iter([]))
    assert drive(open_coordinator(trial), again, lambda progress: None) == "stopped"
    assert again.done == []
    assert len(state_of(trial).trained) == len(state.trained)


def test_a_trial_that_diverges_is_given_up_for_good_and_is_no_failure(
    sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    file = sweep_file(
        scenario="GG",
        method={"name": "upper_bound"},
        training={"num_batches": 20},
        search={"space": {"training.learning_rate": [1e30, 1e-3]}, "held_out": 0.2, "reduction": 2},
    )
    sweep = open_sweep(file, [])
    groups = sweep.plan()
    trials = [settings_of(sweep, group, describe(tmp_path), 2) for group in groups]
    ends = [drive(open_coordinator(trial), ScriptedPool(trial, iter([])), lambda progress: None) for trial in trials]
    assert ends == ["stopped", "done"]
    states = {group.group_id: state_of(trial) for group, trial in zip(groups, trials, strict=True)}
    found = trials_of(groups, states)
    assert [trial.ended for trial in found] == ["done", "diverged"]
    assert best_of(found) is found[0]
    assert sweep_status(sweep, states, {group.group_id: group.size for group in groups}).state == "done"
    again = ScriptedPool(trials[0], iter([]))
    assert drive(open_coordinator(trials[0]), again, lambda progress: None) == "stopped"
    assert again.done == []


def test_a_trial_of_nns_that_diverges_in_a_round_is_given_up_there(
    sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    file = sweep_file(
        scenario="NNs", stream={"segment_batches": 10}, search={"space": {"training.learning_rate": [1e-4, 1e-3]}}
    )
    sweep = open_sweep(file, [])
    coordinator = open_coordinator(settings_of(sweep, sweep.plan()[0], describe(tmp_path), 1))
    (job,) = coordinator.next_jobs([0], [])
    words = {"error": "DivergedError: the training loss is nan", "traceback": "", "diverged": True}
    coordinator.report({"status": "failed", "key": job["key"], **words})
    assert coordinator.next_jobs([0], []) == []
    assert coordinator.finished()
    assert coordinator.end() == "stopped"


def test_stopping_what_has_finished_changes_nothing(trial: dict[str, Any]) -> None:
    assert drive(open_coordinator(trial), ScriptedPool(trial, iter([])), lambda progress: None) == "done"
    again = drive(
        open_coordinator(trial), ScriptedPool(trial, iter([])), lambda progress: None, Asked(stop=lambda: True)
    )
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


def test_a_key_that_is_set_is_not_searched(search: Sweep) -> None:
    both = "search.space={training.learning_rate: {low: 0.1, high: 0.2, log: true}, net.num_outputs: [20, 30]}"
    search.file.write_text(yaml.safe_dump(asdict(open_sweep(search.file, [both, "search.num_trials=2"]).config)))
    found = open_sweep(search.file, ["training.learning_rate=0.05"]).config
    assert found.search is not None
    assert found.search.space == {"net.num_outputs": [20, 30]}
    assert found.training["learning_rate"] == 0.05


def test_an_axis_is_replaced_whole(search: Sweep) -> None:
    first = "search.space={training.learning_rate: {low: 1.0e-5, high: 1.0, log: true}}"
    second = "search.space={training.learning_rate: {low: 1e-4, high: 1e-3}}"
    ranged = open_sweep(search.file, [first, "search.num_trials=2"]).config
    search.file.write_text(yaml.safe_dump(asdict(ranged)))
    found = open_sweep(search.file, [second]).config.search
    assert found is not None
    assert found.space == {"training.learning_rate": {"low": 1e-4, "high": 1e-3}}


def test_the_best_finds_the_modules_beside_the_search(search: Sweep) -> None:
    search.file.with_name("my_nets.py").write_text("")
    asked = replace(search, config=replace(search.config, imports=["my_nets", "math", "other.py"]))
    best = yaml.safe_load(best_sweep(asked, Trial({}, 8, 0.9, "done")))
    beside = search.file.parent
    assert best["imports"] == [str(beside / "my_nets.py"), "math", str(beside / "other.py")]


def test_a_space_is_widened_on_the_command_line(search: Sweep) -> None:
    wider = open_sweep(search.file, ["search.space={training.learning_rate: [1, 2, 3]}"])
    assert wider.config.search is not None
    assert wider.config.search.space == {"training.learning_rate": [1, 2, 3]}
