"""`supsup resume`."""

from __future__ import annotations

from dataclasses import replace

import click

from orchestrator.cli.arguments import WORKERS, Words, cluster_options, example, words
from orchestrator.cli.run_sweep import run, with_workers
from orchestrator.sweeps.sweep import open_record
from orchestrator.sweeps.sweep_transfer import fetch_newest


@click.command(epilog=example("supsup resume quickstart output=runs"))
@words("[SWEEP] [output=DIR] [data=DIR] [storage=URL]", "output", "data", "storage")
@cluster_options
@WORKERS
def resume(words: Words, cluster: str | None, workers: int | None) -> int:
    """Continue a sweep from its output or its storage.

    SWEEP is the name of a sweep or its beginning (default: the newest sweep of the output).

    With storage=URL, the command first downloads every ledger that is newer in the storage than in the output. The
    output can therefore be a new folder on another machine.
    """
    found = open_record(fetch_newest(words.storage, words.output, words.name))
    if words.data is not None:
        found = replace(found, config=replace(found.config, data=str(words.data)))
    return run(with_workers(found, workers), cluster)
