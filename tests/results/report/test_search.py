"""The report of a search: its trials, and the best configuration as a sweep file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from orchestrator.records.group_state import GroupState
from orchestrator.records.rows import Event, GroupStopped, JobFailed, LaunchEnded, PointCompleted, Row
from orchestrator.results.report.search import (
    Trial,
    best_of,
    best_sweep,
    search_cells,
    search_table,
    trials_of,
    without_late_results,
)
from orchestrator.sweeps.sweep import Sweep, open_sweep
from orchestrator.sweeps.training_groups import Group

RATE = "training.learning_rate"


@pytest.fixture
def search(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    """A search with four learning rates and eight tasks."""
    monkeypatch.chdir(tmp_path)
    file = sweep_file(
        benchmark={"name": "permuted", "base": "digits", "num_tasks": 8},
        training={"num_batches": 5},
        evaluation={"at": [8]},
        search={"space": {RATE: [1e-4, 1e-3, 1e-2, 1e-1]}, "reduction": 2},
    )
    return open_sweep(file, [])


def test_trials_show_how_they_ended_and_are_ranked_by_the_tasks_that_they_reached(search: Sweep) -> None:
    groups = search.plan()
    ids = [(group.group_id, group.runs[0].run_id) for group in groups]

    def state(number: int, accuracies: dict[int, float], *ends: Event) -> GroupState:
        points = [PointCompleted(ids[number][1], n, {"accuracy": value}, ()) for n, value in accuracies.items()]
        return GroupState().apply(Row(seq, 0, event) for seq, event in enumerate([*points, *ends], start=1))

    states = {
        ids[0][0]: state(0, {1: 0.9, 2: 0.8}, GroupStopped(2), LaunchEnded("stopped")),
        ids[1][0]: state(1, {1: 0.1, 8: 0.2}, LaunchEnded("done")),
        ids[2][0]: state(2, {1: 0.2, 8: 0.3}, LaunchEnded("done")),
        ids[3][0]: state(3, {}, GroupStopped(0, diverged="DivergedError: the loss is nan"), LaunchEnded("stopped")),
    }
    found = trials_of(groups, states)
    assert [(trial.values[RATE], trial.tasks, trial.accuracy, trial.ended) for trial in found] == [
        (1e-2, 8, 0.3, "done"),
        (1e-3, 8, 0.2, "done"),
        (1e-4, 2, 0.8, "stopped"),
        (1e-1, 0, None, "diverged"),
    ]
    assert best_of(found) is found[0]
    assert search_table(found)["ended"].tolist() == ["done", "done", "stopped", "diverged"]
    assert search_cells(found).rows[-1] == ["0.1", "0", "–", "diverged"]
    del states[ids[3][0]]
    assert best_of(trials_of(groups, states)) is None  # one trial has not ended yet


def replayed(group: Group, accuracies: dict[int, float], *ends: Event) -> GroupState:
    """Returns the state of a trial with these accuracies by number of tasks, and with these last events."""
    points = [PointCompleted(group.runs[0].run_id, n, {"accuracy": value}, ()) for n, value in accuracies.items()]
    return GroupState().apply(Row(seq, 0, event) for seq, event in enumerate([*points, *ends], 1))


STOPPED = (GroupStopped(0), LaunchEnded("stopped"))


def ranked(search: Sweep, *trials: tuple[dict[int, float], tuple[Event, ...]]) -> list[tuple[float, int, float, str]]:
    """Returns the trials as a report ranks them: learning rate, tasks, accuracy, and how they ended."""
    assert search.config.search is not None
    groups = search.plan()[: len(trials)]
    states = {group.group_id: replayed(group, trial[0], *trial[1]) for group, trial in zip(groups, trials, strict=True)}
    found = trials_of(groups, without_late_results(search.config.search, groups, states))
    return [(trial.values[RATE], trial.tasks, trial.accuracy or 0.0, trial.ended) for trial in found]


def test_results_after_the_rung_at_which_a_trial_is_stopped_do_not_count(search: Sweep) -> None:
    """The first trial was slow. The other trials could be judged only after they had trained on, or were done."""
    done = (LaunchEnded("done"),)
    slow = ({1: 0.5, 2: 0.6, 4: 0.6, 8: 0.6}, done)
    failed = ({1: 0.2, 2: 0.3}, (JobFailed("key", "task 3", "disk full", ""), LaunchEnded("failed")))
    found = ranked(search, slow, ({1: 0.4, 2: 0.9, 4: 0.9, 8: 0.9}, done), ({1: 0.5, 2: 0.5, 4: 0.8}, STOPPED), failed)
    assert found == [
        (1e-4, 8, 0.6, "done"),
        (1e-2, 2, 0.5, "stopped"),
        (1e-3, 1, 0.4, "stopped"),
        (1e-1, 1, 0.2, "failed"),
    ]


def test_recorded_ends_count_if_a_stop_was_not_decided_by_these_accuracies(search: Sweep) -> None:
    """An earlier version stopped the first trial, which reported last; or the user cancelled it."""
    done = (LaunchEnded("done"),)
    found = ranked(search, ({1: 0.6, 2: 0.3}, STOPPED), ({1: 0.5, 2: 0.4, 4: 0.5, 8: 0.7}, done))
    assert found == [(1e-3, 8, 0.7, "done"), (1e-4, 2, 0.3, "stopped")]


def test_the_best_trial_is_known_when_every_trial_has_ended() -> None:
    ranked = [Trial({}, 8, 0.5, "done"), Trial({}, 8, 0.4, "done"), Trial({}, 4, 0.9, "stopped")]
    assert best_of(ranked) is ranked[0]
    assert best_of([*ranked, Trial({}, 2, 0.9, "interrupted")]) is None
    assert best_of(ranked[2:]) is None


def test_the_best_trial_is_written_as_a_sweep_file_without_default_settings(search: Sweep, tmp_path: Path) -> None:
    best = Trial({RATE: 3e-4, "net": {"name": "lenet_300_100", "num_outputs": 50}}, 8, 0.9, "done")
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere" / "best.yaml"
    file.write_text(best_sweep(search, best))
    node = yaml.safe_load(file.read_text())
    assert node["training"] == {"num_batches": 5, "learning_rate": 3e-4}
    assert set(node) == {"name", "scenario", "benchmark", "net", "training", "inference", "evaluation"}
    (group,) = open_sweep(file, []).plan()
    assert group.experiment.benchmark.base_name == "digits"  # evaluates on the test images, not on the held-out images
    assert (group.experiment.training.learning_rate, group.experiment.net.num_outputs) == (3e-4, 50)


def test_the_best_sweep_file_finds_the_user_modules_of_the_search(search: Sweep) -> None:
    search.file.with_name("my_nets.py").write_text("")
    asked = replace(search, config=replace(search.config, imports=["my_nets", "math", "other.py"]))
    best = yaml.safe_load(best_sweep(asked, Trial({}, 8, 0.9, "done")))
    beside = search.file.parent
    assert best["imports"] == [str(beside / "my_nets.py"), "math", str(beside / "other.py")]
