"""Running a sweep in this process, without the command line and without MLflow."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.base.environment import describe
from orchestrator.execution.launch import launch, take_stock
from orchestrator.records.ledgers.ledger import LedgerReader
from orchestrator.records.rows import AnyRow
from orchestrator.sweeps.sweep import Sweep


def run_sweep(sweep: Sweep) -> None:
    """Runs a sweep to its end."""
    groups = sweep.plan()
    sweep.save(groups)
    launch(sweep, take_stock(sweep, groups, describe(sweep.imports_folder), cluster=None), cluster=None)


def ledgers(sweep: Sweep) -> dict[str, Sequence[AnyRow]]:
    """Returns all rows of every training group that has a ledger, by group id."""
    found: dict[str, Sequence[AnyRow]] = {}
    for group in sweep.folder.groups():
        with LedgerReader(group.ledger) as reader:
            found[group.group_id] = reader.rows()
    return found
