"""The coordinator of a training group."""

from __future__ import annotations

from orchestrator.coordination.coordinator import Coordinator
from orchestrator.coordination.settings import GroupSettings
from orchestrator.coordination.task_coordinator import TaskCoordinator


def open_coordinator(settings: GroupSettings) -> Coordinator:
    """Open the coordinator of a group: of NNs where no task identity is given, else of shards."""
    if settings.group.is_nns:
        from orchestrator.nns.coordinator import NNsCoordinator  # it loads torch, which other coordinators do without

        return NNsCoordinator(settings)
    return TaskCoordinator(settings)
