"""The states of training groups, from the ledgers of an output folder. Loads no science."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.base.output_folder import GroupFolder, SweepFolder
from orchestrator.base.wording import command
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import LedgerReader
from orchestrator.records.planned_group import GroupSize
from supsup_core.errors import CorruptError


def read_state(folder: GroupFolder) -> GroupState:
    """The state of a group, replayed from its ledger. CorruptError, with a remedy, when the ledger is damaged."""
    try:
        with LedgerReader(folder.ledger) as reader:
            return GroupState().apply(reader.rows())
    except CorruptError as error:
        resume = command("resume", folder.sweep.path)
        raise CorruptError(f"{error}; `{resume}` sets it aside and restores it") from error


def read_states(folder: SweepFolder, planned: Mapping[str, GroupSize]) -> dict[str, GroupState]:
    """The states of the groups of a sweep that have a ledger.

    planned: the groups of the last launch; where it is empty, all groups on disk count.
    """
    found = [group for group in folder.groups() if group.ledger.exists()]
    return {group.group_id: read_state(group) for group in found if not planned or group.group_id in planned}
