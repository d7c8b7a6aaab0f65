"""Stops less accurate trials of a search early, by the rule of ASHA."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from orchestrator.execution.tune_trial import ACCURACY, IS_OVER, TASKS
from orchestrator.spec.search_space import Search
from orchestrator.spec.successive_halving import Judged, halve


@final
class OrderedASHA(FIFOScheduler):  # type: ignore[misc]  # Ray has no types
    """Asynchronous successive halving (ASHA, Li et al. 2020) that judges the trials in the order of the plan.

    The order in which trials report does not affect which trials stop. A trial that cannot be judged yet continues to
    train, because it must not wait for a trial that may need the same worker. Behind a trial that has failed, no trial
    is judged until the failed trial is resumed.

    To stop a trial, this class creates the trial's stop file and does not kill the trial's process. The trial's process
    reads the stop file, records the stop in the trial's ledger, and ends. No other process may write to the ledger.
    After a crash or a resume, each trial first reports its earlier results again.
    """

    def __init__(self, search: Search, num_tasks: int, stop_files: Mapping[str, Path]) -> None:
        """num_tasks: the number of tasks of a complete trial. stop_files: the stop file of each group, by group id, in
        the order of the plan."""
        super().__init__()
        self._rungs = search.rungs(num_tasks)[:-1]  # at the last rung, a trial is complete
        self._reduction = search.reduction
        self._stop_files = stop_files
        self._accuracies: dict[str, dict[int, float]] = {group_id: {} for group_id in stop_files}
        self._over: set[str] = set()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
        """Records a trial's result, and creates the stop files of all trials that must stop. Returns CONTINUE."""
        group_id = trial.config["group"]
        if ACCURACY in result:
            self._accuracies[group_id][result[TASKS]] = result[ACCURACY]
        elif result.get(IS_OVER):
            self._over.add(group_id)
        else:
            return str(TrialScheduler.CONTINUE)
        judged = [Judged(known, group in self._over) for group, known in self._accuracies.items()]
        stops = halve(judged, self._rungs, self._reduction)
        for (group, stop_file), stop in zip(self._stop_files.items(), stops, strict=True):
            if stop is not None and group not in self._over:
                stop_file.touch()
        return str(TrialScheduler.CONTINUE)
