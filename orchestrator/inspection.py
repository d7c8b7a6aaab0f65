"""Verbs that only look at a finished or running sweep: status and report."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator import environment
from orchestrator.files import holder_of
from orchestrator.progress import line
from orchestrator.report import write_report
from orchestrator.status import SweepStatus, read_states, sweep_status
from orchestrator.sweep import Sweep, all_sweeps, find_sweep
from orchestrator.tracking import Tracker


def status(wanted: str | None, output: Path, as_json: bool) -> int:
    """Print the status of one sweep, or of all."""
    sweeps = [find_sweep(output, wanted)] if wanted else all_sweeps(output) or [find_sweep(output, None)]
    statuses = [_status(sweep) for sweep in sweeps]
    if as_json:
        nodes = [found.to_node() for found in statuses]
        print(json.dumps(nodes[0] if wanted else nodes, indent=1))
        return 0
    for found in statuses:
        _print(found)
    return 0


def _status(sweep: Sweep) -> SweepStatus:
    """From the ledgers alone."""
    return sweep_status(sweep, read_states(sweep), sweep.planned)


def _print(found: SweepStatus) -> None:
    process = f" (process {found.process})" if found.process else ""
    print(f"{found.sweep_id}: {found.state}{process}")
    print(f"  {line(found)}")
    for group in found.groups:
        print(
            f"  group {group.group_id} (seed {group.seed}): {group.state}, shards {group.shards_done}/{group.shards}, "
            f"evaluations {group.evaluations_done}/{group.evaluations}"
            + (f", {group.masks} masks" if group.masks is not None else "")
        )
        for lost in group.lost:
            print(f"    made again: {lost}")
        for failure in group.failures:
            print(f"    FAILED {failure}")


def report(wanted: str | None, output: Path) -> int:
    """Write a sweep's report, attach it to MLflow, and print the table."""
    sweep = find_sweep(output, wanted)
    groups = sweep.plan()
    states = read_states(sweep)
    written = write_report(sweep, groups, states)
    if holder_of(sweep.path) is None:
        tracker = Tracker(sweep, groups, environment.describe(sweep.folder))
        tracker.project()
        tracker.attach(written.files, "report")
        tracker.finish({group_id: state.ended for group_id, state in states.items()})
    else:
        print("the sweep is running: its process will attach the report when it ends")
    print(written.text)
    print(f"\nreport: {written.folder}")
    return 0
