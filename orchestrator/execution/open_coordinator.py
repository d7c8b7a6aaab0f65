"""Opens the coordinator that fits a training group's scenario."""

from __future__ import annotations

from orchestrator.coordination.coordinator import Coordinator
from orchestrator.coordination.settings import GroupSettings
from orchestrator.coordination.task_coordinator import TaskCoordinator
from orchestrator.spec import user_modules
from supsup_core.scenarios import SCENARIOS


def open_coordinator(settings: GroupSettings) -> Coordinator:
    """Returns the coordinator of a group: `NNsCoordinator` for scenario NNs (no task identity is given), otherwise
    `TaskCoordinator`.

    Imports the user's modules, which may load torch, only if a run's scenario is defined by the user.
    """
    if {str(run.experiment["scenario"]) for run in settings.group.runs} - set(SCENARIOS.names()):
        user_modules.load(settings.imports, settings.imports_folder)
    if settings.group.is_nns:
        from orchestrator.nns.coordinator import NNsCoordinator  # this import loads torch; TaskCoordinator does not

        return NNsCoordinator(settings)
    return TaskCoordinator(settings)
