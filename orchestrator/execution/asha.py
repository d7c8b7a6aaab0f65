"""Stops the worse trials of a search early. Ray Tune's ASHA selects them, and each records its stop in its ledger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from orchestrator.execution.tune_trial import ACCURACY, TASKS
from orchestrator.spec.search_space import Search


@final
class LedgeredASHA(ASHAScheduler):  # type: ignore[misc]  # Ray has no types
    """Asynchronous successive halving (ASHA, Li et al. 2020). Trials are compared after the same number of tasks.

    If ASHA selects a trial to be stopped, this class creates the trial's stop file and does not kill the trial. The
    trial then stops itself, because only its own process may write to its ledger. After a crash or a resume, each trial
    reports its earlier results again before it continues, so that ASHA can compare other trials with them. As always in
    ASHA, the order in which trials report affects which trials stop.
    """

    def __init__(self, search: Search, num_tasks: int, stop_files: Mapping[str, Path]) -> None:
        """num_tasks: the number of tasks of a complete trial. stop_files: the stop files by training group id."""
        super().__init__(
            time_attr=TASKS, metric=ACCURACY, mode="max", max_t=num_tasks,
            grace_period=min(search.grace_tasks, num_tasks), reduction_factor=search.reduction, stop_last_trials=False,
        )  # fmt: skip
        self._stop_files = stop_files

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
        """Passes a result to ASHA, and creates the trial's stop file if ASHA selects the trial. Returns CONTINUE."""
        if super().on_trial_result(tune_controller, trial, result) == TrialScheduler.STOP:
            self._stop_files[trial.config["group"]].touch()
        return str(TrialScheduler.CONTINUE)
