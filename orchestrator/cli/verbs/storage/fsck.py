"""`supsup fsck`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from orchestrator.base.output_folder import GroupFolder, OutputFolder
from orchestrator.base.wording import as_typed, count, in_shell, say
from orchestrator.cli.arguments import Words, cluster_options, example, words
from orchestrator.cli.chosen import check_is_output, fetch_all, refuse_running
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.run_sweep import run
from orchestrator.cli.tracker import compare_mlflow
from orchestrator.records.ledgers.last_commit import last_commit_path
from orchestrator.records.ledgers.ledger import LedgerReader
from orchestrator.records.ledgers.ledger_file import set_aside, snapshot_path
from orchestrator.results.output_inventory import Damage, verify_output
from orchestrator.sweeps.sweep import open_record
from orchestrator.sweeps.sweep_record import restore_marker
from supsup_core.errors import CorruptError, SupSupError

_PROGRESS_SECONDS = 2.0
"""The seconds between two lines of progress."""


@click.command(epilog=example("supsup fsck output=runs --repair"))
@words("[output=DIR]", "output", most=0)
@click.option("--repair", is_flag=True, help="Move damaged files aside, and run the sweeps that recompute them.")
@click.option(
    "--mlflow", is_flag=True, help="Also compare the MLflow runs with the ledgers. With --repair, correct the runs."
)
@cluster_options
def fsck(words: Words, repair: bool, mlflow: bool, cluster: str | None) -> int:
    """Verify the ledgers and artifacts of an output, or repair them.

    Reads every ledger and every artifact, and compares them with their checksums. Exit code 0 means that all files are
    intact or were repaired. Exit code 1 means that a file is damaged or missing.

    With `--mlflow`, also compares the status, tags, params and metric points of every MLflow run with the ledgers. With
    `--mlflow --repair`, writes missing data to MLflow, and replaces MLflow runs that contradict the ledgers.
    """
    output = words.output
    if repair and restore_marker(output):
        say(f"written again: {as_typed(output.marker)}")
    check_is_output(output)
    if repair:
        refuse_running(output, "fsck --repair")
    fetch_all(output)
    code = _verify_files(output, repair, cluster)
    if mlflow and code is not ExitCode.INTERRUPTED and not compare_mlflow(output, repair, _Progress("MLflow runs")):
        return ExitCode.FAILED
    return code


def _verify_files(output: OutputFolder, repair: bool, cluster: str | None) -> ExitCode:
    """Verifies the ledgers and artifacts of an output, and repairs them if asked."""
    found = _verify(output)
    if not found:
        return ExitCode.DONE
    if not repair:
        say("to move damaged files aside and recompute them, add --repair")
        return ExitCode.FAILED
    return _repair(output, found, cluster)


def _verify(output: OutputFolder) -> list[Damage]:
    """Verifies an output. Prints each damaged or missing file with a remedy, and returns all of them."""
    progress = _Progress("files")
    found, interrupted = verify_output(output, progress)
    for damage in found:
        say(f"{as_typed(damage.path)}: {damage.reason}; {_remedy(damage)}")
    say(f"verified {count(progress.total, 'artifact')} and every ledger: found {count(len(found), 'fault')}")
    for record in interrupted:
        say(f"{record.sweep_id}: its last launch was interrupted; to continue it, run `{record.command('resume')}`")
    return found


def _repair(output: OutputFolder, found: Sequence[Damage], cluster: str | None) -> ExitCode:
    """Moves damaged files aside, runs the sweeps that recompute them, and verifies the output again."""
    for damage in found:
        _set_aside(damage, found)
    is_repaired = True
    for record in {record.sweep_id: record for damage in found for record in damage.sweeps}.values():
        say(f"\n{record.sweep_id}: recomputing damaged files")
        try:
            if run(open_record(record), cluster) is ExitCode.INTERRUPTED:
                return ExitCode.INTERRUPTED
        except SupSupError as error:  # the other sweeps can still be repaired
            say(f"{record.sweep_id}: cannot be repaired: {error}")
            is_repaired = False
    say()
    if not _verify(output) and is_repaired:
        return ExitCode.DONE
    again = f"supsup fsck output={in_shell(output.path)} --repair"
    say(f"supsup: not every fault was repaired; correct the causes given above, then run `{again}`", file=sys.stderr)
    return ExitCode.FAILED


def _set_aside(damage: Damage, found: Sequence[Damage]) -> None:
    """Moves a damaged file aside and prints its new path.

    found: all damaged files of the output. A damaged ledger is moved only if its snapshot is intact; the snapshot then
    replaces the ledger when the sweep runs next. Without an intact snapshot, the ledger stays. The sweep's next run
    then keeps the ledger's rows if they are readable, and otherwise starts with an empty ledger.
    """
    aside = None
    ledger = GroupFolder(damage.path.parent).ledger
    if damage.store is not None:
        aside = damage.store.quarantine(damage.key) if damage.store.has(damage.key) else None
    elif damage.path == ledger:
        snapshot = snapshot_path(ledger)
        if snapshot.exists() and all(other.path != snapshot for other in found) and _is_corrupt(ledger):
            aside = set_aside(ledger)
    elif damage.path in (snapshot_path(ledger), last_commit_path(ledger)):
        aside = set_aside(damage.path)
    if aside is not None:
        say(f"moved the damaged file to {as_typed(aside)}")


def _is_corrupt(ledger: Path) -> bool:
    """Returns whether a ledger is still corrupt when it is read again, and is not just unreadable at the moment."""
    try:
        with LedgerReader(ledger) as reader:
            reader.verify()
    except CorruptError:
        return True
    except SupSupError:
        return False
    return False


def _remedy(damage: Damage) -> str:
    """Returns the remedy for a damaged file, as the end of a message."""
    if damage.sweeps:
        commands = " or ".join(f"`{record.command('resume')}`" for record in damage.sweeps)
        return f"to restore the file, run {commands}"
    if damage.store is not None:
        return (
            "no action is needed, because no trained task depends on this file, and a sweep recomputes a missing "
            "evaluation"
        )
    return "until this fault is corrected, `supsup gc` deletes nothing, so no trained task is lost"


class _Progress:
    """Prints the number of verified things to standard error, at most every _PROGRESS_SECONDS seconds.

    `total`: the number of things to verify.
    """

    def __init__(self, things: str) -> None:
        """things: a plural noun for the verified items, such as `files`, for messages."""
        self.total = 0
        self._things = things
        self._printed = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        self.total = total
        if time.monotonic() - self._printed >= _PROGRESS_SECONDS:
            self._printed = time.monotonic()
            say(f"verified {done:,} of {total:,} {self._things}", file=sys.stderr, flush=True)
