"""`supsup cancel`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from orchestrator.base.folder_lock import holder_of, owned
from orchestrator.base.output_folder import GroupFolder
from orchestrator.base.wording import say
from orchestrator.cli.arguments import Words, example, run_command, tasks_option, words
from orchestrator.cli.chosen import print_sharing_runs, shard_keys
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.coordination.control_files import CancelFile
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledgers.ledger import Entry, open_ledger
from orchestrator.records.rows import GroupStopped, TaskCancelled
from orchestrator.sweeps.lookup import read_state
from orchestrator.sweeps.run_lookup import FoundRun, find_run
from orchestrator.sweeps.sweep_transfer import publish, refresh
from supsup_core.errors import InputError


@click.command(epilog=example("supsup cancel 'quickstart GNu entropy seed=1'"))
@words("RUN [output=DIR]", "output", noun="run", least=1)
@tasks_option("Cancel only task N (repeatable). Tasks that depend on task N are not trained either.")
def cancel(words: Words, tasks: tuple[int, ...]) -> int:
    """Cancel a run, or some of its tasks, while the sweep continues.

    RUN is the run's id, or words from the names of the run and its sweep, as `supsup plan` prints them. All runs that
    share the run's training are cancelled with it: they start no new work, and `supsup resume` does not continue them.
    With --task, only task N, for example a stalled task, and the evaluations that need it are cancelled. `supsup retry`
    undoes a cancellation.
    """
    refresh(words.output)
    found = find_run(words.names[0], words.output)
    keys = shard_keys(found, tasks)
    folder = found.sweep.folder.group(found.group.group_id)
    _read_unfinished(found, folder, keys)
    print_sharing_runs(found)
    if holder_of(folder.sweep.path) is not None:
        how = _request(folder, list(keys))
    else:
        with owned(folder.sweep.path):
            _record(found, folder, keys)
        how = "cancelled"
    named = (
        f"{'task' if len(keys) == 1 else 'tasks'} {', '.join(map(str, keys))} of {found.name}" if keys else found.name
    )
    say(f"{named}: {how}. Undo the cancellation with: {run_command('retry', folder.sweep, found.run.name, list(keys))}")
    return ExitCode.DONE


def _read_unfinished(found: FoundRun, folder: GroupFolder, keys: Mapping[int, str]) -> GroupState:
    """Returns the state of a run's training group. keys: the content keys of the tasks to cancel, by task.

    Raises InputError if the group has ended, or if one of the tasks is trained.
    """
    state = read_state(folder)
    if state.stopped is not None or state.status == "done":
        raise InputError(f"{found.name}: has ended already; there is nothing to cancel")
    if done := [task for task, key in keys.items() if key in state.trained]:
        raise InputError(f"--task: task {done[0]} of {found.name} is trained already; there is nothing to cancel")
    return state


def _request(folder: GroupFolder, tasks: Sequence[int]) -> str:
    """Requests, by a control file, that the running sweep cancels a training group or some of its tasks.

    Returns the end of the message that tells the user what will happen.
    """
    if tasks:
        CancelFile(folder.cancel_file).add(tasks)
        return "cancellation requested; the running sweep will stop the training"
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.stop_file.touch()
    return "cancellation requested; the running sweep stops this run when the work in progress is done"


def _record(found: FoundRun, folder: GroupFolder, keys: Mapping[int, str]) -> None:
    """Records the cancellation in the ledger of a training group that no process is running."""
    state = _read_unfinished(found, folder, keys)
    writer = open_ledger(folder.ledger).writer
    if keys:
        writer.commit([Entry(TaskCancelled(key, task)) for task, key in keys.items()])
    else:
        writer.append(GroupStopped(max((n for _, n in state.points), default=0), reason="cancelled"))
    writer.close()
    if found.sweep.storage is not None:
        publish(found.sweep, [])
