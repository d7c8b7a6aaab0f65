"""Writes the MLflow runs of a sweep after the sweep has ended, and compares them with the sweep's ledgers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from orchestrator.base import environment
from orchestrator.base.folder_lock import holder_of
from orchestrator.base.output_folder import OutputFolder
from orchestrator.base.wording import count, first_line, say
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledgers.ledger import LedgerReader
from orchestrator.records.rows import AnyRow
from orchestrator.sweeps.sweep import Sweep, open_record
from orchestrator.sweeps.sweep_record import read_record
from orchestrator.sweeps.training_groups import Group
from orchestrator.tracking.mlflow_address import explained
from orchestrator.tracking.monitor import conclude
from supsup_core.errors import InputError

if TYPE_CHECKING:
    from orchestrator.tracking.comparison.sweep_check import SweepCheck
    from orchestrator.tracking.mlflow_writer import Tracker

OnProgress = Callable[[int, int], None]


@contextlib.contextmanager
def updated_tracker(
    sweep: Sweep, groups: Sequence[Group], purpose: Literal["report", "repair"] = "report"
) -> Iterator[tuple[Tracker, dict[str, GroupState]]]:
    """Updates the sweep's MLflow runs from its ledgers.

    Yields the tracker of these runs, and the states of the training groups. The caller must end the runs with
    `Tracker.finish`. purpose: see Tracker. Raises SupSupError, with a remedy, for any MLflow error in the `with` block,
    and WriterBusyError if another process is writing the runs.
    """
    from orchestrator.tracking.mlflow_writer import Tracker  # loads MLflow, which takes seconds

    described = environment.describe(sweep.imports_folder)
    with explained(sweep), contextlib.closing(Tracker(sweep, groups, described, purpose=purpose)) as tracker:
        rows = _read_rows(sweep, groups)
        states = _states(rows)
        tracker.project(rows)
        tracker.tag_machines(states)
        yield tracker, states


def _read_rows(sweep: Sweep, groups: Sequence[Group]) -> dict[str, list[AnyRow]]:
    """Returns all rows of the ledgers of a sweep, by group id."""
    found = {}
    for group in groups:
        with LedgerReader(sweep.folder.group(group.group_id).ledger) as reader:
            found[group.group_id] = reader.rows()
    return found


def compare_mlflow(output: OutputFolder, repair: bool, on_progress: OnProgress) -> bool:
    """Compares the MLflow runs of all sweeps of an output with the ledgers.

    Returns whether the runs agree with the ledgers. Prints one line for each kind of fault of each MLflow run. Leaves
    out sweeps that are running, and damaged sweeps. repair: whether to write missing data, mark duplicate runs as
    deleted, and write wrong runs anew. on_progress: is called with two numbers for the current sweep: its MLflow runs
    that were compared so far, and all its MLflow runs.
    """
    agree = True
    for folder in output.sweeps():
        if holder_of(folder.path) is not None:
            say(f"{folder.sweep_id}: is still running; compare its MLflow runs when the sweep has ended")
            continue
        with contextlib.suppress(InputError):  # fsck has already reported the damaged sweep
            record = read_record(folder)
            try:
                agree &= _compare_sweep(open_record(record), repair, on_progress)
            except Exception as error:  # noqa: BLE001 - MLflow, its database, its server or the network may fail
                say(f"{folder.sweep_id}: the MLflow runs cannot be compared: {first_line(error)}")
                agree = False
    return agree


def _compare_sweep(sweep: Sweep, repair: bool, on_progress: OnProgress) -> bool:
    """Compares the MLflow runs of one sweep with its ledgers. If `repair` is True, corrects the runs.

    Returns whether the runs agree with the ledgers in the end.
    """
    groups = sweep.plan()
    found = _print_check(sweep, groups, on_progress)
    if not found.faults:
        return True
    if not repair:
        say("to correct the MLflow runs, add --repair")
        return False
    with updated_tracker(sweep, groups, "repair") as (tracker, states):
        conclude(tracker, groups, states)
    return not _print_check(sweep, groups, on_progress).faults


def _states(rows: Mapping[str, Sequence[AnyRow]]) -> dict[str, GroupState]:
    return {group_id: GroupState().apply(its_rows) for group_id, its_rows in rows.items()}


def _print_check(sweep: Sweep, groups: Sequence[Group], on_progress: OnProgress) -> SweepCheck:
    """Compares the MLflow runs of a sweep with its ledgers, and prints the faults and a summary."""
    from orchestrator.tracking.comparison.sweep_check import LedgerContent, check_sweep  # loads MLflow

    rows = _read_rows(sweep, groups)
    found = check_sweep(sweep, groups, LedgerContent(rows, _states(rows)), on_progress)
    for fault in found.faults:
        say(fault)
    say(
        f"{sweep.sweep_id}: compared {count(found.num_runs, 'MLflow run')} and "
        f"{count(found.num_points, 'metric point')} with the ledgers: found {count(len(found.faults), 'fault')}"
    )
    return found
