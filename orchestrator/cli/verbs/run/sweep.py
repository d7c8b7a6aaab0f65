"""`supsup sweep`."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.arguments import OVERRIDES, SWEEP_FILE, WORKERS, cluster_options, example
from orchestrator.cli.run_sweep import run, with_workers
from orchestrator.sweeps.sweep import open_sweep
from orchestrator.sweeps.sweep_transfer import fetch_if_stored


@click.command(epilog=example("supsup sweep sweeps/fig07_permuted_lenet.yaml benchmark.num_tasks=10 --workers 2"))
@SWEEP_FILE
@OVERRIDES
@cluster_options
@WORKERS
def sweep(file: Path, overrides: tuple[str, ...], cluster: str | None, workers: int | None) -> int:
    """Run a sweep file to its end.

    If the sweep was interrupted, the same command continues it. Tasks that are already trained in the output are not
    trained again.

    Every key of FILE can be set as key=value. `output=DIR` is the folder of all results (default: runs). `data=DIR` is
    the folder of the datasets (default: SUPSUP_DATA, then the user's cache). With `storage=URL`, all results are also
    stored in an object store or another folder.
    """
    asked = open_sweep(file, overrides)
    if fetch_if_stored(asked):
        asked = open_sweep(file, overrides)
    return run(with_workers(asked, workers), cluster)
