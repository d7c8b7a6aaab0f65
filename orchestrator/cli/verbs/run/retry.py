"""`supsup retry`."""

from __future__ import annotations

from collections.abc import Mapping

import click

from orchestrator.base.folder_lock import owned
from orchestrator.cli.arguments import Words, cluster_options, example, tasks_option, words
from orchestrator.cli.chosen import print_sharing_runs, shard_keys
from orchestrator.cli.run_sweep import refuse_impossible, run
from orchestrator.coordination.control_files import CancelFile
from orchestrator.records.ledgers.ledger import open_ledger
from orchestrator.records.rows import ArtifactLost, RetryRequested
from orchestrator.sweeps.run_lookup import FoundRun, find_run
from orchestrator.sweeps.sweep_transfer import refresh


@click.command(epilog=example("supsup retry 'quickstart GNu entropy seed=1' --task 7"))
@words("RUN [output=DIR]", "output", noun="run", least=1)
@tasks_option("Retry only task N (repeatable). A task that is already trained is trained again.")
@cluster_options
def retry(words: Words, tasks: tuple[int, ...], cluster: str | None) -> int:
    """Retry a run that failed or was cancelled, or some of its tasks.

    RUN is the run's id, or words from the names of the run and its sweep, as `supsup plan` prints them. The other runs
    that share the run's training are retried too. Then the command does the remaining work of the sweep.

    Training a task again gives the same mask on a CPU, and also on a GPU if resources.deterministic is true. In these
    cases, a different mask points to faulty hardware.
    """
    refresh(words.output)
    found = find_run(words.names[0], words.output)
    print_sharing_runs(found)
    keys = shard_keys(found, tasks)
    refuse_impossible(found.sweep, cluster)  # before any artifact is moved aside
    with owned(found.sweep.folder.path):
        _request_retry(found, keys)
    return run(found.sweep, cluster)


def _request_retry(found: FoundRun, keys: Mapping[int, str]) -> None:
    """Withdraws the cancellation of a training group or of some of its tasks, so that the next run retries them.

    keys: the content keys of the tasks to retry, by task; empty for the whole group. Moves the artifacts of these tasks
    aside, so that the tasks are trained again.
    """
    folder = found.sweep.folder.group(found.group.group_id)
    folder.stop_file.unlink(missing_ok=True)
    CancelFile(folder.cancel_file).remove(keys)
    store = found.sweep.store
    writer = open_ledger(folder.ledger).writer
    writer.append(RetryRequested(tuple(keys)))
    for task, key in keys.items():
        if store.has(key):
            aside = store.quarantine(key)
            writer.append(ArtifactLost(key, str(aside), "the user requested a retry", task))
    writer.close()
