"""What the ledger of a sweep of one training group says."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from orchestrator.base.output_folder import GroupFolder, OutputFolder
from orchestrator.records.ledger import LedgerReader
from orchestrator.records.rows import AnyRow, Event, Row

E = TypeVar("E", bound=Event)


def the_group(output: Path) -> GroupFolder:
    """The only training group of an output's only sweep."""
    (sweep,) = OutputFolder(output).sweeps()
    (group,) = sweep.groups()
    return group


def rows_of(group: GroupFolder) -> list[AnyRow]:
    """All rows of a group's ledger."""
    with LedgerReader(group.ledger) as reader:
        return reader.rows()


def events(rows: list[AnyRow], kind: type[E]) -> list[E]:
    """The events of one kind, in order."""
    return [row.event for row in rows if isinstance(row.event, kind)]


def committed(rows: list[AnyRow], kind: type[E]) -> list[Row[E]]:
    """The rows with events of one kind, in order."""
    return [Row(row.seq, row.time_ms, row.event) for row in rows if isinstance(row.event, kind)]
