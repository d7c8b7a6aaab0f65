"""Reads the ledger of a sweep that has one training group."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from orchestrator.base.output_folder import GroupFolder, OutputFolder
from orchestrator.records.ledgers.ledger import LedgerReader
from orchestrator.records.rows import AnyRow, Event, Row

E = TypeVar("E", bound=Event)


def the_group(output: Path) -> GroupFolder:
    """Returns the training group of an output that holds one sweep with one group; ValueError if there are more."""
    (sweep,) = OutputFolder(output).sweeps()
    (group,) = sweep.groups()
    return group


def rows_of(group: GroupFolder) -> list[AnyRow]:
    """Returns all rows of a group's ledger."""
    with LedgerReader(group.ledger) as reader:
        return reader.rows()


def events(rows: list[AnyRow], kind: type[E]) -> list[E]:
    """Returns the events of one kind, in the order of the ledger."""
    return [row.event for row in rows if isinstance(row.event, kind)]


def committed(rows: list[AnyRow], kind: type[E]) -> list[Row[E]]:
    """Returns the rows whose event has this kind, in the order of the ledger."""
    return [Row(row.seq, row.time_ms, row.event) for row in rows if isinstance(row.event, kind)]
