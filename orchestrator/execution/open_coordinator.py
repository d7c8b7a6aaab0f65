"""Opens the coordinator of a training group. The group's scenario determines the coordinator's class."""

from __future__ import annotations

from orchestrator.coordination.coordinator import Coordinator
from orchestrator.coordination.settings import GroupSettings
from orchestrator.coordination.task_coordinator import TaskCoordinator
from orchestrator.spec import user_modules
from supsup_core.scenarios import SCENARIOS


def open_coordinator(settings: GroupSettings) -> Coordinator:
    """Returns the coordinator of a group: an `NNsCoordinator` for scenario NNs (no task identity is given), otherwise a
    `TaskCoordinator`.

    Imports the user's modules only if the user defined the scenario of a run, because these modules may load torch.
    """
    if {str(run.experiment["scenario"]) for run in settings.group.runs} - set(SCENARIOS.names()):
        user_modules.load(settings.imports, settings.imports_folder)
    if settings.group.is_nns:
        from orchestrator.nns.coordinator import NNsCoordinator  # loads torch, which TaskCoordinator does not need

        return NNsCoordinator(settings)
    return TaskCoordinator(settings)
