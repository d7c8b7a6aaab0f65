"""Ray Tune schedulers, which run in the process of the command: one for plain sweeps, and ASHA for searches.

Ray Tune calls a scheduler several times a second. Ray Tune would call a tune.Callback as often. But if a callback is
given, Ray Tune 2.60 first imports MLflow, so that the first trial would start a second later.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from orchestrator.base.output_folder import SweepFolder
from orchestrator.base.wording import count
from orchestrator.execution.cluster_room import Asked, RoomWatch, WaitingLog, is_pending
from orchestrator.execution.ray_session import restore_handlers
from orchestrator.execution.tune_trial import ACCURACY, IS_OVER, TASKS
from orchestrator.spec.search_space import Search
from orchestrator.spec.successive_halving import Judged, halve

WATCH_SECONDS = 1.0
"""The seconds between two checks whether training groups wait for free resources in the cluster."""


@final
class TrialWatch:
    """If no training group can start, logs for which cluster resources the groups wait.

    Groups that wait while another group of the sweep runs are not logged, because they start when that group ends. A
    request to pause ends the wait. Without this rule, a waiting sweep could not be paused, because only running trials
    read the request.
    """

    def __init__(self, folder: SweepFolder, worker: Mapping[str, float], placements: Sequence[Any]) -> None:
        """worker: the CPUs and GPUs of each worker. placements: the tune.PlacementGroupFactory of each group."""
        smallest = min(len(one.bundles) for one in placements) - 1  # one bundle is for the trial's process
        self._room = RoomWatch(
            folder.waiting_file,
            Asked(smallest, worker),
            lambda: any(is_pending(one.bundles) for one in placements),
        )
        self._log = WaitingLog(folder)
        self._pause_file = folder.pause_file
        self._due = 0.0

    def look(self, trials: Sequence[Any]) -> None:
        """Call this method often, with all trials. Raises KeyboardInterrupt if the sweep must pause."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + WATCH_SECONDS
        states = [str(trial.status) for trial in trials]
        waiting = 0 if "RUNNING" in states else states.count("PENDING")
        self._room.update(
            f"{count(waiting, 'training group')} {'has' if waiting == 1 else 'have'} waited" if waiting else None
        )
        self._log.update()
        if waiting and self._pause_file.exists():
            raise KeyboardInterrupt


@final
class OrderedASHA:
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
        self._rungs = search.rungs(num_tasks)[:-1]  # at the last rung, a trial is complete
        self._reduction = search.reduction
        self._stop_files = stop_files
        self._accuracies: dict[str, dict[int, float]] = {group_id: {} for group_id in stop_files}
        self._over: set[str] = set()

    def record(self, group_id: str, result: Mapping[str, Any]) -> None:
        """Records a result of a trial, and creates the stop files of all trials that must stop."""
        if ACCURACY in result:
            self._accuracies[group_id][result[TASKS]] = result[ACCURACY]
        elif result.get(IS_OVER):
            self._over.add(group_id)
        else:
            return
        judged = [Judged(known, group in self._over) for group, known in self._accuracies.items()]
        stops = halve(judged, self._rungs, self._reduction)
        for (group, stop_file), stop in zip(self._stop_files.items(), stops, strict=True):
            if stop is not None and group not in self._over:
                stop_file.touch()


@final
class InOrder(FIFOScheduler):  # type: ignore[misc]  # Ray has no types
    """Starts the trials in the order of the plan. While they run, gives this process its own signal handlers again,
    because Ray Tune sets a handler of SIGUSR1."""

    def __init__(self, watch: TrialWatch, judge: OrderedASHA | None = None) -> None:
        """watch: sees the trials several times a second. judge: receives the results of the trials of a search."""
        super().__init__()
        self._watch = watch
        self._judge = judge

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Ray Tune calls this method several times a second. Returns the next trial, or None."""
        restore_handlers()
        self._watch.look(tune_controller.get_trials())
        return super().choose_trial_to_run(tune_controller)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
        """Ray Tune calls this method with each result. Always returns CONTINUE, because Ray Tune would otherwise kill
        the trial's process."""
        if self._judge is not None:
            self._judge.record(trial.config["group"], result)
        return str(TrialScheduler.CONTINUE)
