"""`supsup stop`."""

from __future__ import annotations

import os
import signal
import socket
import time

import click

from orchestrator.base.folder_lock import holder_of, host_of
from orchestrator.base.wording import say
from orchestrator.cli.arguments import JOB_ADDRESS, Words, example, words
from orchestrator.cli.chosen import find_running
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.sweeps.sweep_record import SweepRecord
from supsup_core.errors import InputError

PATIENCE_SECONDS = 10.0
"""If a sweep takes longer than these seconds to end, the command says how to stop the sweep at once."""


@click.command(epilog=example("supsup stop fig04_split_imagenet --address http://127.0.0.1:8265"))
@words("[SWEEP or JOB] [output=DIR]", "output")
@JOB_ADDRESS
def stop(words: Words, address: str | None) -> int:
    """Stop a running sweep or job now; finished work is committed.

    Interrupts the sweep's process, as Ctrl-C does, and waits until the process has ended. In scenario NNs, the process
    first finishes the current round; a second `supsup stop` stops the process at once. `supsup resume` continues the
    sweep. For a submitted job, add --address.
    """
    if address:
        from orchestrator.cluster import ray_jobs  # loads torch, which a sweep on this machine does not need

        return ray_jobs.stop(words.job, address)
    record, process = find_running(words)
    _interrupt(record, process)
    asked, is_patient = time.monotonic(), True
    while holder_of(record.folder.path) is not None:
        if is_patient and time.monotonic() > asked + PATIENCE_SECONDS:
            is_patient = False
            say(
                f"{record.sweep_id}: process {process} is finishing its work; stop the process at once with: "
                f"{record.command('stop')}",
                flush=True,
            )
        time.sleep(0.2)
    say(f"{record.sweep_id}: stopped; finished work is committed. Go on with: {record.command('resume')}")
    return ExitCode.DONE


def _interrupt(record: SweepRecord, process: int) -> None:
    """Sends SIGINT to a process. Raises InputError if the process runs on another machine or as another user."""
    if process <= 0 or host_of(record.folder.path) != socket.gethostname():
        raise InputError(
            f"{record.sweep_id}: runs on {host_of(record.folder.path) or 'an unknown machine'}; run `supsup stop` on "
            f"that machine, or stop the sweep after the work in progress with: {record.command('drain')}"
        )
    try:
        os.kill(process, signal.SIGINT)
    except ProcessLookupError:
        pass  # the process has just ended
    except PermissionError as error:
        raise InputError(
            f"{record.sweep_id}: process {process} belongs to another user; only that user can stop the sweep"
        ) from error
