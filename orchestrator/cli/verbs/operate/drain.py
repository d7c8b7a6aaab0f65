"""`supsup drain`."""

from __future__ import annotations

import click

from orchestrator.cli.arguments import JOB_ADDRESS, Words, example, words
from orchestrator.cli.chosen import find_running
from orchestrator.cli.exit_codes import ExitCode


@click.command(epilog=example("supsup drain quickstart"))
@words("[SWEEP or JOB] [output=DIR]", "output")
@JOB_ADDRESS
def drain(words: Words, address: str | None) -> int:
    """End a running sweep or job after the work under way.

    Tasks that are being trained are finished and no others begin. The command returns at once. `supsup resume`
    continues the sweep. For a submitted job, add --address.
    """
    if address:
        from orchestrator.cluster import ray_jobs  # loads torch, which a sweep here does not need

        return ray_jobs.drain(words.job, address)
    record, _ = find_running(words)
    record.folder.pause_file.touch()
    print(
        f"{record.sweep_id}: ends what is under way, and then itself; watch it with `{record.command('status')}`, "
        f"go on with `{record.command('resume')}`"
    )
    return ExitCode.DONE
