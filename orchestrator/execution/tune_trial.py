"""Runs one training group as a Ray Tune trial. The group's coordinator runs in the trial's process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ray import tune

from orchestrator.base.environment import check_code
from orchestrator.coordination.control_files import Requests
from orchestrator.coordination.coordinator import Coordinator, Progress
from orchestrator.coordination.settings import GroupSettings
from orchestrator.execution.cluster_room import Asked, RoomWatch, lacks_bundles
from orchestrator.execution.drive import drive
from orchestrator.execution.open_coordinator import open_coordinator
from orchestrator.execution.ray_actors import ActorPool
from supsup_core.errors import SupSupError

TASKS, ACCURACY = "tasks", "accuracy"
"""Names of the metrics that a search's trial reports: the number of tasks learned, and the mean accuracy on held-out
images of these tasks."""

IS_OVER = "is_over"
"""Name of the metric that a search's trial reports at its end, unless it was interrupted or has failed. A trial that is
over reports no further accuracies."""

ERROR = "supsup_error"
"""Name of the metric in which a trial reports an error that a retry would not fix."""


def drive_trial(
    config: Mapping[str, str], settings: Mapping[str, GroupSettings], resources: Mapping[str, float]
) -> None:
    """Runs the training group with the id `config["group"]`, as a Ray Tune trial.

    settings: the settings of each group, by group id. resources: the CPUs and GPUs of each worker. If the trial's
    process dies, Ray Tune starts the trial again, and the coordinator restores its state from the ledger. A SupSupError
    is reported as the metric `ERROR`, because Ray Tune would retry the trial if this function raised the error.
    """
    mine = settings[config["group"]]
    try:
        check_code(mine.code_digest)
        _drive_group(open_coordinator(mine), mine, resources)
    except SupSupError as error:
        tune.report({ERROR: error})


def _drive_group(coordinator: Coordinator, settings: GroupSettings, resources: Mapping[str, float]) -> None:
    requests = Requests.from_files(settings.folder)
    if not settings.is_trial:
        drive(coordinator, _pool(settings, resources), _report_progress, requests)
        return
    report = _judgement_reporter(coordinator)
    report()  # first report the results of earlier launches, because ASHA compares the other trials with them
    if coordinator.finished():
        end = coordinator.end()
    else:
        end = drive(coordinator, _pool(settings, resources), lambda progress: report(), requests, every=0)
    if end not in ("interrupted", "failed"):
        tune.report({IS_OVER: True})


def _pool(settings: GroupSettings, resources: Mapping[str, float]) -> ActorPool:
    watch = RoomWatch(settings.folder.waiting_file, Asked(settings.num_workers, resources), lacks_bundles)
    return ActorPool(settings, resources, watch=watch)


def _report_progress(progress: Progress) -> None:
    tune.report(
        {
            "shards_done": progress.shards_done,
            "evaluations_done": progress.evaluations_done,
            "accuracy": progress.accuracy,
        }
    )


def _judgement_reporter(coordinator: Coordinator) -> Callable[[], None]:
    """Returns a function that reports to ASHA the trial's evaluation points that earlier calls did not report."""
    reported = 0

    def report() -> None:
        nonlocal reported
        for tasks, accuracy in coordinator.judged()[reported:]:
            tune.report({TASKS: tasks, ACCURACY: accuracy})
            reported += 1

    return report
