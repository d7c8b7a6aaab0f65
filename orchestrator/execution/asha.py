"""Stops less accurate trials of a search early. Ray Tune's ASHA scheduler selects the trials to be stopped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from orchestrator.execution.tune_trial import ACCURACY, TASKS
from orchestrator.spec.search_space import Search


@final
class LedgeredASHA(ASHAScheduler):  # type: ignore[misc]  # Ray has no types
    """Asynchronous successive halving (ASHA, Li et al. 2020), in which each selected trial stops itself.

    ASHA compares the accuracies of trials after the same number of tasks. If ASHA selects a trial to be stopped, this
    class creates the trial's stop file and does not kill the trial's process. The trial's process reads the stop file,
    records the stop in the trial's ledger, and ends. No other process may write to the ledger. After a crash or a
    resume, each trial first reports its earlier results again, so that ASHA can compare other trials with these
    results. As always in ASHA, the order in which trials report affects which trials stop.
    """

    def __init__(self, search: Search, num_tasks: int, stop_files: Mapping[str, Path]) -> None:
        """num_tasks: the number of tasks of a complete trial. stop_files: the stop file of each group, by group id."""
        super().__init__(
            time_attr=TASKS, metric=ACCURACY, mode="max", max_t=num_tasks,
            grace_period=min(search.grace_tasks, num_tasks), reduction_factor=search.reduction, stop_last_trials=False,
        )  # fmt: skip
        self._stop_files = stop_files

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
        """Passes a trial's result to ASHA. If ASHA stops the trial, creates its stop file. Always returns CONTINUE."""
        if super().on_trial_result(tune_controller, trial, result) == TrialScheduler.STOP:
            self._stop_files[trial.config["group"]].touch()
        return str(TrialScheduler.CONTINUE)
