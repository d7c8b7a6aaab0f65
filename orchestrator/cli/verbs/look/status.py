"""`supsup status`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from orchestrator.base.output_folder import OutputFolder
from orchestrator.base.wording import say
from orchestrator.cli.arguments import JOB_ADDRESS, JSON, Words, example, words
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.records.object_storage import ASKING_SECONDS, Storage
from orchestrator.results.machines import MEANING
from orchestrator.results.progress_line import line
from orchestrator.results.status import GroupStatus, SweepStatus, sweep_status
from orchestrator.sweeps.lookup import read_states
from orchestrator.sweeps.sweep_record import SweepRecord, all_records, find_record
from orchestrator.sweeps.sweep_transfer import fetch


@click.command(epilog=example("supsup status quickstart --json"))
@words("[SWEEP or JOB] [output=DIR] [storage=URL]", "output", "storage")
@JSON
@JOB_ADDRESS
def status(words: Words, as_json: bool, address: str | None) -> int:
    """Show what is done, running or failed, and the time left.

    SWEEP is the name of a sweep or its beginning (default: all sweeps of the output). The command only reads, so it can
    be used while the sweep runs.

    With storage=URL, the command shows the sweeps in a storage, whichever machine runs them. It reads the state of a
    sweep from the newest snapshots of the sweep's ledgers in the storage. For a submitted job, add --address.
    """
    if address:
        from orchestrator.cluster import ray_jobs  # loads torch, which a sweep on this machine does not need

        return ray_jobs.status(words.job, address, as_json)
    if words.storage is None:
        _show(words.output, words.name, as_json)
        return ExitCode.DONE
    with tempfile.TemporaryDirectory() as scratch:
        output = OutputFolder(Path(scratch))
        names = fetch(Storage(words.storage, ASKING_SECONDS), output, words.name)
        _show(output, names[0] if len(names) == 1 or words.name is not None else None, as_json)
    if not as_json:
        say(
            f"this status comes from the newest snapshots in {words.storage}; a sweep that runs on another machine is "
            "shown as interrupted"
        )
    return ExitCode.DONE


def _show(output: OutputFolder, wanted: str | None, as_json: bool) -> None:
    """Prints the status of the sweep that `wanted` names, or of all sweeps of the output if `wanted` is None."""
    records = [find_record(output, wanted)] if wanted else all_records(output) or [find_record(output, None)]
    found = [_status_of(record) for record in records]
    if as_json:
        nodes = [one.to_node() for one in found]
        say(json.dumps(nodes[0] if wanted else nodes, indent=1))
        return
    for one in found:
        _print(one)


def _status_of(record: SweepRecord) -> SweepStatus:
    return sweep_status(record.folder, read_states(record.folder, record.planned), record.planned)


def _print(found: SweepStatus) -> None:
    process = f" (process {found.process})" if (found.process or 0) > 0 else ""
    say(f"{found.sweep_id}: {found.state}{process}")
    say(f"  {line(found)}")
    for waiting in found.waiting:
        say(f"  WAITING {waiting}")
    for group in found.groups:
        _print_group(group)


def _print_group(group: GroupStatus) -> None:
    masks = f", {group.masks} masks" if group.masks is not None else ""
    say(
        f"  group {group.group_id} (seed {group.seed}): {group.state}, shards {group.shards_done}/{group.shards}, "
        f"evaluations {group.evaluations_done}/{group.evaluations}{masks}"
    )
    if len(group.machines) > 1:
        say(f"    MIXED  computed on {len(group.machines)} machine kinds ({MEANING}):")
        for machine in group.machines:
            say(f"      {machine}")
    for lost in group.lost:
        say(f"    recomputed: {lost}")
    for stalled in group.stalled:
        say(f"    STALLED {stalled}")
    for task in group.cancelled:
        say(f"    cancelled: task {task}")
    for failure in group.failures:
        say(f"    FAILED {failure}")
