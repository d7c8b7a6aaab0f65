"""Reads the states of training groups from the ledgers of an output folder, without loading torch."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.base.output_folder import GroupFolder, SweepFolder
from orchestrator.base.wording import command
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledgers.ledger import LedgerReader
from orchestrator.records.ledgers.ledger_file import collector_paused
from orchestrator.records.planned_group import GroupSize
from supsup_core.errors import CorruptError


def read_state(folder: GroupFolder) -> GroupState:
    """Returns the state of a group by replaying its ledger. Raises CorruptError if the ledger is damaged."""
    try:
        with collector_paused(), LedgerReader(folder.ledger) as reader:
            return GroupState().apply(reader.rows())
    except CorruptError as error:
        resume = command("resume", folder.sweep.path)
        raise CorruptError(f"{error}; `{resume}` restores the ledger") from error


def read_states(folder: SweepFolder, planned: Mapping[str, GroupSize]) -> dict[str, GroupState]:
    """Returns the states of a sweep's groups, by group id. Leaves out groups that never had a ledger.

    planned: the groups of the last launch; other groups are left out. If `planned` is empty, all groups on disk are
    read. Raises CorruptError if a ledger is damaged, or is missing although rows were committed to it.
    """
    found = [group for group in folder.groups() if not planned or group.group_id in planned]
    return {group.group_id: read_state(group) for group in found}
