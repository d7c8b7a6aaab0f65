"""`supsup logs`."""

from __future__ import annotations

import click

from orchestrator.cli.arguments import JOB_ADDRESS, Words, example, words
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.results import event_log
from orchestrator.sweeps.sweep_record import find_record
from supsup_core.errors import InputError


@click.command(epilog=example("supsup logs quickstart"))
@words("[SWEEP or JOB] [output=DIR]", "output")
@JOB_ADDRESS
def logs(words: Words, address: str | None) -> int:
    """Show and follow the log of a sweep or job.

    SWEEP is the name of a sweep or its beginning (default: the newest sweep of the output). The file supsup.log in the
    sweep's folder holds the same log, with one JSON object per line. For a submitted job, add --address.
    """
    if address:
        from orchestrator.cluster import ray_jobs  # loads torch, which the log of a sweep on this machine does not need

        return ray_jobs.logs(words.job, address)
    record = find_record(words.output, words.name)
    if not record.folder.log_file.exists():
        raise InputError(
            f"{record.sweep_id}: has no log, because the sweep has never run; start it with "
            f"`{record.command('resume')}`"
        )
    event_log.follow(record.folder)
    return ExitCode.DONE
