"""Says on which machine kinds the results of a sweep were computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.records.group_state import GroupState
from orchestrator.records.machine_kind import Machines

if TYPE_CHECKING:  # loads torch, which `supsup status` does not need
    from orchestrator.sweeps.training_groups import Group

MEANING = (
    "results of one machine kind are reproducible bit for bit, but results of several kinds only within floating-point "
    "tolerance"
)
"""Explains to users why it matters that several machine kinds contributed to a result."""


@dataclass(frozen=True)
class ComputedOn:
    """The names of the runs whose results were computed on exactly these machine kinds."""

    runs: tuple[str, ...]
    machines: Machines

    @property
    def is_mixed(self) -> bool:
        """Whether more than one machine kind contributed to the results."""
        return len(self.machines) > 1


def computed_on(groups: Sequence[Group], states: Mapping[str, GroupState]) -> list[ComputedOn]:
    """Returns the runs of a sweep by their machine kinds, in the order of the runs. Leaves out runs without results."""
    found: dict[Machines, list[str]] = {}
    for group in groups:
        for run in group.runs:
            machines = states.get(group.group_id, GroupState()).machines_of(run.run_id)
            if machines:
                found.setdefault(machines, []).append(run.name)
    return [ComputedOn(tuple(runs), machines) for machines, runs in found.items()]
