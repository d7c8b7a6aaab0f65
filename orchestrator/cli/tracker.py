"""Opens the MLflow runs of a sweep for verbs that write to them after the sweep has ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from orchestrator.base import environment
from orchestrator.base.output_folder import GroupFolder
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import LedgerReader
from orchestrator.records.rows import AnyRow
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.training_groups import Group
from orchestrator.tracking.mlflow_address import explained

if TYPE_CHECKING:
    from orchestrator.tracking.mlflow_writer import Tracker


@contextlib.contextmanager
def updated_tracker(sweep: Sweep, groups: Sequence[Group]) -> Iterator[Tracker]:
    """Updates the sweep's MLflow runs from the sweep's ledgers, and yields the tracker of these MLflow runs.

    The caller must end the runs with `Tracker.finish`. Raises SupSupError, with a remedy, for any MLflow error in the
    `with` block.
    """
    from orchestrator.tracking.mlflow_writer import Tracker  # loads MLflow, which takes seconds

    with explained(sweep):
        tracker = Tracker(sweep, groups, environment.describe(sweep.imports_folder))
        rows = {group.group_id: _read_rows(sweep.folder.group(group.group_id)) for group in groups}
        tracker.project(rows)
        tracker.tag_machines({group_id: GroupState().apply(found) for group_id, found in rows.items()})
        yield tracker


def _read_rows(folder: GroupFolder) -> list[AnyRow]:
    """Returns all rows of a group's ledger."""
    with LedgerReader(folder.ledger) as reader:
        return reader.rows()
