"""Early stopping of a search's trials: Ray Tune's ASHA decides, and each trial records in its ledger that it stops."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from orchestrator.execution.tune_trial import ACCURACY, TASKS
from orchestrator.spec.search_space import Search


@final
class LedgeredASHA(ASHAScheduler):  # type: ignore[misc]  # Ray has no types
    """Asynchronous successive halving over tasks learned (Li et al. 2020).

    A trial that falls behind is not killed. Its stop file requests that it stops, and it records that in its own
    ledger, which has one writer. After a crash or a resume, every trial first reports again what it has, so the rungs
    are filled before more is trained. Which trials stop depends on the order in which trials report, as always in ASHA.
    """

    def __init__(self, search: Search, num_tasks: int, stop_files: Mapping[str, Path]) -> None:
        """stop_files: by training group, which a trial's config names."""
        super().__init__(
            time_attr=TASKS, metric=ACCURACY, mode="max", max_t=num_tasks,
            grace_period=min(search.grace_tasks, num_tasks), reduction_factor=search.reduction, stop_last_trials=False,
        )  # fmt: skip
        self._stop_files = stop_files

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
        """Request that a trial stops where ASHA would kill it."""
        if super().on_trial_result(tune_controller, trial, result) == TrialScheduler.STOP:
            self._stop_files[trial.config["group"]].touch()
        return str(TrialScheduler.CONTINUE)
