"""A Ray Tune trial: it drives one training group, with the group's coordinator in its own process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ray import tune

from orchestrator.coordination.control_files import Requests
from orchestrator.coordination.coordinator import Coordinator, Progress
from orchestrator.coordination.settings import GroupSettings
from orchestrator.execution.drive import drive
from orchestrator.execution.open_coordinator import open_coordinator
from orchestrator.execution.ray_actors import ActorPool
from supsup_core.errors import SupSupError

TASKS, ACCURACY = "tasks", "accuracy"
"""The metrics that a search's trial reports: tasks learned, and the average validation accuracy after them."""

ERROR = "supsup_error"
"""The metric under which a trial reports an error that retrying would not mend."""


def drive_trial(
    config: Mapping[str, str], settings: Mapping[str, GroupSettings], resources: Mapping[str, float]
) -> None:
    """A Ray Tune trial: run the group that `config` names, with workers of `resources` each.

    The coordinator is in this process. When the process dies, Tune starts the trial again, which reads its state from
    the ledger. An error that starting again would not mend is reported as a metric, since Tune retries what is raised.
    """
    mine = settings[config["group"]]
    try:
        _drive_group(open_coordinator(mine), mine, resources)
    except SupSupError as error:
        tune.report({ERROR: error})


def _drive_group(coordinator: Coordinator, settings: GroupSettings, resources: Mapping[str, float]) -> None:
    requests = Requests.from_files(settings.folder)
    if not settings.is_trial:
        drive(coordinator, ActorPool(settings, resources), _report_progress, requests)
        return
    report = _judgement_reporter(coordinator)
    report()  # what earlier launches found comes first: the other trials are judged by it
    if coordinator.finished():
        coordinator.end()
        return
    drive(coordinator, ActorPool(settings, resources), lambda progress: report(), requests, every=0)


def _report_progress(progress: Progress) -> None:
    tune.report(
        {
            "shards_done": progress.shards_done,
            "evaluations_done": progress.evaluations_done,
            "accuracy": progress.accuracy,
        }
    )


def _judgement_reporter(coordinator: Coordinator) -> Callable[[], None]:
    """A function that reports each evaluation point of a search's trial to the scheduler, once."""
    reported = 0

    def report() -> None:
        nonlocal reported
        for tasks, accuracy in coordinator.judged()[reported:]:
            tune.report({TASKS: tasks, ACCURACY: accuracy})
            reported += 1

    return report
