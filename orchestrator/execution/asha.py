"""Early stopping of a search's trials. Ray Tune's ASHA decides; each stopped trial records that in its own ledger."""

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

    A trial that falls behind is not killed. Its stop file requests that the trial stops, because only the trial itself
    may write to its ledger. After a crash or a resume, every trial first reports its earlier results again, so that
    ASHA's rungs are filled before training continues. As always in ASHA, the order in which trials report affects which
    trials stop.
    """

    def __init__(self, search: Search, num_tasks: int, stop_files: Mapping[str, Path]) -> None:
        """num_tasks: the number of tasks of a complete trial. stop_files: maps a training group's id to its stop
        file."""
        super().__init__(
            time_attr=TASKS, metric=ACCURACY, mode="max", max_t=num_tasks,
            grace_period=min(search.grace_tasks, num_tasks), reduction_factor=search.reduction, stop_last_trials=False,
        )  # fmt: skip
        self._stop_files = stop_files

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
        """Create the trial's stop file if ASHA would kill the trial. Always lets Ray Tune continue the trial."""
        if super().on_trial_result(tune_controller, trial, result) == TrialScheduler.STOP:
            self._stop_files[trial.config["group"]].touch()
        return str(TrialScheduler.CONTINUE)
