"""`supsup fsck`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import click

from orchestrator.base.output_folder import GroupFolder, OutputFolder
from orchestrator.base.wording import as_typed, count
from orchestrator.cli.arguments import Words, cluster_options, example, words
from orchestrator.cli.chosen import check_is_output, fetch_all, refuse_running
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.run_sweep import run
from orchestrator.records.ledger_file import set_aside, snapshot_path
from orchestrator.results.output_inventory import Damage, damages
from orchestrator.sweeps.sweep import open_record

_PROGRESS_SECONDS = 2.0
"""How often progress is printed."""


@click.command(epilog=example("supsup fsck output=runs --repair"))
@words("[output=DIR]", "output", most=0)
@click.option("--repair", is_flag=True, help="Set damaged files aside, and run the sweeps that make them again.")
@cluster_options
def fsck(words: Words, repair: bool, cluster: str | None) -> int:
    """Verify all files of an output, and repair damaged ones.

    Every ledger and every artifact is read and compared with its checksum. Exit code 0 means that all files are sound,
    or were repaired; 1 means that something is damaged.
    """
    output = words.output
    check_is_output(output)
    if repair:
        refuse_running(output, "fsck --repair")
    fetch_all(output)
    found = _verify(output)
    if not found:
        return ExitCode.DONE
    if not repair:
        print("to set damaged files aside and make them again, add --repair")
        return ExitCode.FAILED
    return _repair(output, found, cluster)


def _verify(output: OutputFolder) -> list[Damage]:
    """All damage in an output. Prints it."""
    progress = _Progress()
    found = damages(output, progress)
    for damage in found:
        print(f"{as_typed(damage.path)}: {damage.reason}; {_remedy(damage)}")
    print(f"{count(progress.total, 'artifact')} verified, and every ledger: {count(len(found), 'fault')}")
    return found


def _repair(output: OutputFolder, found: Sequence[Damage], cluster: str | None) -> ExitCode:
    """Set damaged files aside, run the sweeps that make them again, and verify the output once more."""
    for damage in found:
        _set_aside(damage, found)
    for record in {record.sweep_id: record for damage in found for record in damage.sweeps}.values():
        print(f"\n{record.sweep_id}: making damaged files again")
        if run(open_record(record), cluster) is ExitCode.INTERRUPTED:
            return ExitCode.INTERRUPTED
    print()
    return ExitCode.FAILED if _verify(output) else ExitCode.DONE


def _set_aside(damage: Damage, found: Sequence[Damage]) -> None:
    """Rename a damaged file. A ledger only where its snapshot is sound, which then replaces it: without a snapshot, the
    sweep itself keeps the rows that are sound."""
    aside = None
    ledger = GroupFolder(damage.path.parent).ledger
    if damage.store is not None:
        aside = damage.store.quarantine(damage.key) if damage.store.has(damage.key) else None
    elif damage.path == ledger:
        snapshot = snapshot_path(ledger)
        if snapshot.exists() and all(other.path != snapshot for other in found):
            aside = set_aside(ledger)
    elif damage.path == snapshot_path(ledger):
        aside = set_aside(damage.path)
    if aside is not None:
        print(f"set aside: {as_typed(aside)}")


def _remedy(damage: Damage) -> str:
    """What makes a damaged file good again, in words."""
    if damage.sweeps:
        names = ", ".join(record.sweep_id for record in damage.sweeps)
        return f"{names} makes it again when it is run (`supsup resume`)"
    if damage.store is not None:
        return "nothing depends on it: what counts is in a ledger, or is evaluated again"
    return "no trained task is lost"


class _Progress:
    """Prints to standard error how many files are verified, every few seconds."""

    def __init__(self) -> None:
        self.total = 0
        self._printed = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        self.total = total
        if time.monotonic() - self._printed >= _PROGRESS_SECONDS:
            self._printed = time.monotonic()
            print(f"verified {done:,} of {total:,} files", file=sys.stderr, flush=True)
