"""`supsup drain`."""

from __future__ import annotations

import click

from orchestrator.base.wording import say
from orchestrator.cli.arguments import JOB_ADDRESS, Words, example, words
from orchestrator.cli.chosen import find_running
from orchestrator.cli.exit_codes import ExitCode


@click.command(epilog=example("supsup drain quickstart"))
@words("[SWEEP or JOB] [output=DIR]", "output")
@JOB_ADDRESS
def drain(words: Words, address: str | None) -> int:
    """Stop a running sweep or job after the work in progress.

    The sweep finishes the tasks that are in training (in scenario NNs, the current round), and starts no others. The
    command does not wait until the sweep has ended. `supsup resume` continues the sweep. For a submitted job, add
    --address.
    """
    if address:
        from orchestrator.cluster import ray_jobs  # loads torch, which a sweep on this machine does not need

        return ray_jobs.drain(words.job, address)
    record, _ = find_running(words)
    record.folder.pause_file.touch()
    say(
        f"{record.sweep_id}: stops when the work in progress is committed; watch the sweep with "
        f"`{record.command('status')}`, and continue it with `{record.command('resume')}`"
    )
    return ExitCode.DONE
