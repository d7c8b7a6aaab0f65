"""The scheduler of a search requests stops by files, whatever the order in which the trials report."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.tune.schedulers import TrialScheduler

from orchestrator.execution.schedulers import InOrder, OrderedASHA, TrialWatch
from orchestrator.execution.tune_trial import ACCURACY, ERROR, IS_OVER, TASKS
from orchestrator.spec.search_space import Search

SEARCH = Search(space={"training.learning_rate": [1e-3, 1e-4, 1e-5]}, reduction=2)


class Trials:
    """Three trials of four tasks with ids a, b and c, in the order of the plan."""

    def __init__(self, folder: Path) -> None:
        self.files = {name: folder / name for name in "abc"}
        self._scheduler = InOrder(cast("TrialWatch", None), OrderedASHA(SEARCH, 4, self.files))

    def report(self, name: str, **result: Any) -> set[str]:
        """Reports a result of a trial. Returns the trials that have stop files."""
        found = self._scheduler.on_trial_result(None, SimpleNamespace(config={"group": name}), result)
        assert found == TrialScheduler.CONTINUE  # Ray Tune would kill the trial's process
        return {name for name, file in self.files.items() if file.exists()}

    def reach(self, name: str, tasks: int, accuracy: float) -> set[str]:
        return self.report(name, **{TASKS: tasks, ACCURACY: accuracy})


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
def test_the_order_of_the_reports_does_not_matter(tmp_path: Path, order: tuple[str, ...]) -> None:
    trials, accuracies = Trials(tmp_path), {"a": 0.5, "b": 0.7, "c": 0.4}
    stopped: set[str] = set()
    for name in order:
        stopped = trials.reach(name, 1, accuracies[name])
    assert stopped == {"c"}


def test_a_trial_is_judged_when_the_trials_before_it_have_reported_or_are_over(tmp_path: Path) -> None:
    trials = Trials(tmp_path)
    assert trials.reach("a", 1, 0.5) == set()
    assert trials.reach("c", 1, 0.4) == set()  # b may still be worse
    assert trials.report("b", **{ERROR: "the storage is gone"}) == set()  # it can be resumed
    assert trials.report("b", **{IS_OVER: True}) == {"c"}  # it has diverged


def test_a_complete_trial_gets_no_stop_file(tmp_path: Path) -> None:
    """Such a file would stop a later run of the group."""
    trials = Trials(tmp_path)
    for tasks in (1, 2, 4):
        trials.reach("b", tasks, 0.1)
    trials.report("b", **{IS_OVER: True})
    assert trials.reach("a", 1, 0.9) == set()
