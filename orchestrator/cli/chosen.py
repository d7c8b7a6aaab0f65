"""Finds the sweep, run, tasks or output that a verb acts on.

Raises InputError if there is nothing that the verb can act on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.base.folder_lock import holder_in_words, holder_of
from orchestrator.base.output_folder import STORED_SWEEPS, OutputFolder
from orchestrator.base.wording import command, say
from orchestrator.cli.arguments import Words
from orchestrator.records.object_storage import ASKING_SECONDS, Storage
from orchestrator.sweeps.sweep_record import SweepRecord, check_output, find_record, storage_of
from orchestrator.sweeps.sweep_transfer import fetch
from supsup_core.errors import InputError

if TYPE_CHECKING:  # loads torch
    from orchestrator.sweeps.run_lookup import FoundRun


def find_running(words: Words) -> tuple[SweepRecord, int]:
    """Returns the record of the named sweep, and the id of the process that runs it (-1 if the id cannot be read).

    If `words` has no name, uses the newest sweep of the output. Raises InputError if there is no such sweep or if the
    sweep is not running.
    """
    record = find_record(words.output, words.name)
    process = holder_of(record.folder.path)
    if process is None:
        raise InputError(
            f"{record.sweep_id}: is not running on this machine; for a job on a Ray cluster, add --address URL"
        )
    return record, process


def shard_keys(found: FoundRun, tasks: Sequence[int]) -> dict[int, str]:
    """Returns a mapping from each of `tasks` to its content key. Raises InputError if the run has no such task."""
    keys = {shard.task: shard.key for shard in found.group.shards}
    for task in tasks:
        if not keys:
            raise InputError(
                f"--task: {found.name} has scenario NNs, whose training is not divided into tasks; remove --task"
            )
        if task not in keys:
            raise InputError(f"--task: {found.name} has no task {task}; its tasks are 0 to {max(keys)}")
    return {task: keys[task] for task in tasks}


def print_sharing_runs(found: FoundRun) -> None:
    """Prints the names of the other runs in the run's training group, because a command on the group affects them."""
    others = [run.name for run in found.group.runs if run.run_id != found.run.run_id]
    if others:
        say(f"these runs share the run's training, so the command affects them too: {'; '.join(others)}")


def check_is_output(output: OutputFolder) -> None:
    """Raises InputError unless the folder is an output in the format of this version."""
    check_output(output)
    if not output.exists:
        raise InputError(f"{output.path}: is not an output of supsup; set output=DIR to the output folder of a sweep")


def refuse_running(output: OutputFolder, verb: str) -> None:
    """Raises InputError if a process is running a sweep of the output, or is writing a fork to it.

    verb: the refused command, for the message.
    """
    for fork in output.unfinished_forks():
        if holder_of(fork.path) is not None:
            raise InputError(
                f"{verb}: {holder_in_words(fork.path)} is writing a fork to this output; wait until the fork has "
                "started"
            )
    for folder in output.all_sweep_folders():
        if holder_of(folder.path) is not None:
            raise InputError(
                f"{verb}: {holder_in_words(folder.path)} is running {folder.sweep_id}; wait until the sweep has ended, "
                f"or stop it with `{command('stop', folder.path)}`"
            )


def fetch_all(output: OutputFolder) -> None:
    """Downloads each ledger in the output's storage that is newer than the output's own copy.

    Does nothing if the output has no storage. gc and fsck need the ledgers of all sweeps, because sweeps of other
    machines also reference artifacts in the storage.
    """
    url = storage_of(output)
    if url is not None and Storage(url, ASKING_SECONDS).files(STORED_SWEEPS):
        fetch(Storage(url, ASKING_SECONDS), output, None)
