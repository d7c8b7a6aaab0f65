"""What verbs act on, and whether they may: a running sweep, a run with some of its tasks, a whole output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.base.folder_lock import holder_of
from orchestrator.base.output_folder import STORED_SWEEPS, OutputFolder
from orchestrator.base.wording import command
from orchestrator.cli.arguments import Words
from orchestrator.records.object_storage import ASKING_SECONDS, Storage
from orchestrator.sweeps.sweep_record import SweepRecord, check_output, find_record, storage_of
from orchestrator.sweeps.sweep_transfer import fetch
from supsup_core.errors import InputError

if TYPE_CHECKING:  # loads torch
    from orchestrator.sweeps.run_lookup import FoundRun


def find_running(words: Words) -> tuple[SweepRecord, int]:
    """The sweep that is named, and the process that runs it (-1 where it is not known). InputError where none does."""
    record = find_record(words.output, words.name)
    process = holder_of(record.folder.path)
    if process is None:
        raise InputError(f"{record.sweep_id}: is not running here; for a job of a cluster, add --address URL")
    return record, process


def shard_keys(found: FoundRun, tasks: Sequence[int]) -> dict[int, str]:
    """The content keys of some tasks of a run, by task. InputError for a task that the run does not have."""
    keys = {shard.task: shard.key for shard in found.group.shards}
    for task in tasks:
        if not keys:
            raise InputError(f"--task: {found.name} is NNs, where no task is given; leave --task out")
        if task not in keys:
            raise InputError(f"--task: {found.name} has no task {task} to train; it has 0 to {max(keys)}")
    return {task: keys[task] for task in tasks}


def print_sharing_runs(found: FoundRun) -> None:
    """Print which other runs are affected: those of the same training group."""
    others = [run.name for run in found.group.runs if run.run_id != found.run.run_id]
    if others:
        print(f"these runs share its training: {'; '.join(others)}")


def check_is_output(output: OutputFolder) -> None:
    """InputError unless the folder is an output of this version."""
    check_output(output)
    if not output.exists:
        raise InputError(f"{output.path}: not an output of supsup; set output=DIR to a folder that sweeps were run in")


def refuse_running(output: OutputFolder, verb: str) -> None:
    """InputError when a process runs a sweep of the output."""
    for folder in output.all_sweep_folders():
        process = holder_of(folder.path)
        if process is not None:
            raise InputError(
                f"{verb}: process {process} is running {folder.sweep_id}; wait until it has ended, or end it with "
                f"`{command('stop', folder.path)}`"
            )


def fetch_all(output: OutputFolder) -> None:
    """Fetch newer states of all sweeps in the output's storage, if it has one. Sweeps of other machines need artifacts
    too."""
    url = storage_of(output)
    if url is not None and Storage(url, ASKING_SECONDS).files(STORED_SWEEPS):
        fetch(Storage(url, ASKING_SECONDS), output, None)
