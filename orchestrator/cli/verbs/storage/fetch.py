"""`supsup fetch`."""

from __future__ import annotations

import click

from orchestrator.base.wording import as_typed, say
from orchestrator.cli.arguments import Words, example, words
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.records.object_storage import ASKING_SECONDS, Storage
from orchestrator.sweeps.sweep_record import check_output
from orchestrator.sweeps.sweep_transfer import fetch as fetch_sweeps


@click.command(epilog=example("supsup fetch fig09_permuted_2500 storage=s3://bucket/runs output=here"))
@words("[SWEEP] storage=URL [output=DIR]", "storage", "output")
def fetch(words: Words) -> int:
    """Download sweeps from a storage to an output on this machine.

    SWEEP is the name of a sweep or its beginning (default: all sweeps of the storage). Afterwards, `supsup report`,
    `compare` and `decisions` work on this machine. The command downloads only ledgers. Trained masks are downloaded
    when a later command needs them.
    """
    check_output(words.output)
    if words.storage is None:
        raise click.UsageError("storage=URL is missing; give the URL of the storage to fetch from")
    for name in fetch_sweeps(Storage(words.storage, ASKING_SECONDS), words.output, words.name):
        say(f"{name}: fetched to {as_typed(words.output.path)}")
    return ExitCode.DONE
