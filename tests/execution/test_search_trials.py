"""The trials of a search, run in this process: they are evaluated at rungs, and a stopped trial is not resumed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.base.environment import describe
from orchestrator.coordination.control_files import Requests
from orchestrator.coordination.messages import Failed
from orchestrator.coordination.settings import GroupSettings
from orchestrator.execution import tune_trial
from orchestrator.execution.drive import drive
from orchestrator.execution.launch import settings_of
from orchestrator.execution.open_coordinator import open_coordinator
from orchestrator.results.report.search import best_of, trials_of
from orchestrator.results.status import sweep_status
from orchestrator.sweeps.sweep import Sweep, open_sweep
from supsup_core.datasets import base_node
from tests.scripted import ScriptedPool, run_with, state_of


@pytest.fixture
def search(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    """A search with two trials of eight short tasks."""
    monkeypatch.chdir(tmp_path)
    file = sweep_file(
        benchmark={"name": "permuted", "base": "digits", "num_tasks": 8},
        training={"num_batches": 5},
        search={"space": {"training.learning_rate": [1e-4, 1e-3]}, "held_out": 0.2, "reduction": 2},
        evaluation={"at": [8]},
    )
    return open_sweep(file, [])


@pytest.fixture
def trial(search: Sweep, tmp_path: Path) -> GroupSettings:
    """The settings of the search's first trial, with one worker."""
    return settings_of(search, search.plan()[0], describe(tmp_path), 1)


def test_trials_never_see_the_test_images(search: Sweep) -> None:
    for group in search.plan():
        base = group.experiment.benchmark.source()
        assert base_node(base) == {"name": "held_out", "of": "digits", "share": 0.2, "seed": 0}
        assert group.experiment.evaluation.points(8) == [1, 2, 4, 8]


def test_a_trial_is_evaluated_at_each_rung_before_it_trains_further(trial: GroupSettings) -> None:
    pool = ScriptedPool(trial, iter([]))
    coordinator = open_coordinator(trial)
    assert drive(coordinator, pool, lambda progress: None) == "done"
    kinds = "".join(job.kind[0] for job in pool.done)
    assert kinds == "te" + "t" + "e" * 2 + "tt" + "e" * 4 + "tttt" + "e" * 8
    assert [n for n, _ in coordinator.judged()] == [1, 2, 4, 8]


def test_a_stopped_trial_stays_stopped(trial: GroupSettings) -> None:
    first = open_coordinator(trial)
    pool = ScriptedPool(trial, iter([]))
    behind = iter([False] * 5)
    assert drive(first, pool, lambda progress: None, Requests(stop=lambda: next(behind, True))) == "stopped"
    state = state_of(trial)
    assert state.status == state.ended == "stopped"
    assert state.stopped is not None
    done = len(pool.done)
    assert 0 < done < 8
    again = ScriptedPool(trial, iter([]))
    assert run_with(trial, again) == "stopped"
    assert again.done == []
    assert len(state_of(trial).trained) == len(state.trained)


def test_a_trial_that_diverges_is_stopped_for_good_and_does_not_count_as_failed(
    sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    file = sweep_file(
        scenario="GG",
        method={"name": "upper_bound"},
        training={"num_batches": 20, "optimizer": "sgd"},
        search={"space": {"training.learning_rate": [1e6, 1e-3]}, "held_out": 0.2, "reduction": 2},
    )
    sweep = open_sweep(file, [])
    groups = sweep.plan()
    trials = [settings_of(sweep, group, describe(tmp_path), 2) for group in groups]
    ends = [run_with(trial, ScriptedPool(trial, iter([]))) for trial in trials]
    assert ends == ["stopped", "done"]
    states = {group.group_id: state_of(trial) for group, trial in zip(groups, trials, strict=True)}
    found = trials_of(groups, states)
    assert [trial.ended for trial in found] == ["done", "diverged"]
    assert best_of(found) is found[0]
    assert sweep_status(sweep.folder, states, {group.group_id: group.size for group in groups}).state == "done"
    again = ScriptedPool(trials[0], iter([]))
    assert run_with(trials[0], again) == "stopped"
    assert again.done == []


def test_an_nns_trial_that_diverges_is_stopped_in_that_round(
    sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    file = sweep_file(
        scenario="NNs", stream={"segment_batches": 10}, search={"space": {"training.learning_rate": [1e-4, 1e-3]}}
    )
    sweep = open_sweep(file, [])
    coordinator = open_coordinator(settings_of(sweep, sweep.plan()[0], describe(tmp_path), 1))
    ((_, job),) = coordinator.next_jobs([0], [])
    coordinator.report(Failed(job.key, job.kind, "DivergedError: the training loss is nan", "", diverged=True))
    assert coordinator.next_jobs([0], []) == []
    assert coordinator.finished()
    assert coordinator.end() == "stopped"


@pytest.mark.parametrize(
    ("end", "is_over"), [("done", True), ("stopped", True), ("failed", False), ("interrupted", False)]
)
def test_a_trial_reports_that_it_is_over_unless_it_can_be_resumed(
    trial: GroupSettings, monkeypatch: pytest.MonkeyPatch, end: str, is_over: bool
) -> None:
    reported: list[dict[str, object]] = []
    monkeypatch.setattr(tune_trial.tune, "report", reported.append)
    monkeypatch.setattr(tune_trial, "_pool", lambda settings, resources: ScriptedPool(settings, iter([])))
    monkeypatch.setattr(tune_trial, "drive", lambda *arguments, **options: end)
    tune_trial.drive_trial({"group": "g"}, {"g": trial}, {})
    assert [result.get(tune_trial.IS_OVER, False) for result in reported] == [True] * is_over


def test_stopping_a_finished_trial_changes_nothing(trial: GroupSettings) -> None:
    assert run_with(trial, ScriptedPool(trial, iter([]))) == "done"
    assert run_with(trial, ScriptedPool(trial, iter([])), Requests(stop=lambda: True)) == "done"
    assert state_of(trial).stopped is None


def test_the_search_settings_are_part_of_the_sweeps_identity(search: Sweep) -> None:
    wider = open_sweep(search.file, ["search.held_out=0.3"])
    assert wider.sweep_id != search.sweep_id
    assert wider.config.search is not None
    assert math.isclose(wider.config.search.held_out, 0.3)
