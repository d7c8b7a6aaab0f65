"""The coordinator of a training group."""

from __future__ import annotations

from orchestrator.coordination.coordinator import Coordinator
from orchestrator.coordination.settings import GroupSettings
from orchestrator.coordination.task_coordinator import TaskCoordinator
from orchestrator.spec import user_modules
from supsup_core.scenarios import SCENARIOS


def open_coordinator(settings: GroupSettings) -> Coordinator:
    """Open the coordinator of a group: of NNs where no task identity is given, else of shards.

    The user's modules, which may load torch, are imported only where a run has a scenario of the user's own.
    """
    if {str(run.experiment["scenario"]) for run in settings.group.runs} - set(SCENARIOS.names()):
        user_modules.load(settings.imports, settings.imports_folder)
    if settings.group.is_nns:
        from orchestrator.nns.coordinator import NNsCoordinator  # it loads torch, which other coordinators do without

        return NNsCoordinator(settings)
    return TaskCoordinator(settings)
