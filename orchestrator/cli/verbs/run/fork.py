"""`supsup fork`."""

from __future__ import annotations

import click

from orchestrator.cli.arguments import WORKERS, Words, cluster_options, example, words
from orchestrator.cli.run_sweep import run, with_workers
from orchestrator.nns.fork import Start, fork_sweep
from orchestrator.sweeps.sweep import open_record
from orchestrator.sweeps.sweep_transfer import fetch_newest


@click.command(epilog=example("supsup fork fig09_permuted_2500 --at-task 500 allocation.name=ratio"))
@words("SWEEP key=value... [output=DIR]", "output", least=1, has_overrides=True)
@click.option(
    "--at-task", type=click.IntRange(min=1), metavar="N",
    help="Start from the state after N learned tasks (default: the last committed state).",
)  # fmt: skip
@click.option(
    "--run", "run_name", metavar="RUN",
    help="The run to start from: a part of the run's name, or the id of its training group.",
)  # fmt: skip
@cluster_options
@WORKERS
def fork(words: Words, at_task: int | None, run_name: str | None, cluster: str | None, workers: int | None) -> int:
    """Start a new NNs sweep from a committed state of another sweep.

    NNs is the scenario in which no task identity is given. These keys can change: allocation.*, budget.*, evaluation.*,
    inference.* and benchmark.num_tasks. A larger benchmark.num_tasks extends a finished run. The files of trained masks
    are hard-linked if the file system allows it, and copied otherwise.
    """
    origin = open_record(fetch_newest(None, words.output, words.name))
    return run(with_workers(fork_sweep(origin, words.overrides, Start(at_task, run_name)), workers), cluster)
