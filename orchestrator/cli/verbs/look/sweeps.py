"""`supsup sweeps`."""

from __future__ import annotations

import itertools
from pathlib import Path

import click

from orchestrator.base.wording import count, duration, say
from orchestrator.cli.arguments import example
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.total_cost import total_cost
from orchestrator.records.group_state import GroupState
from orchestrator.spec.sweep_config import PAPER, scales_of
from orchestrator.spec.sweep_text import text_of
from orchestrator.sweeps.cost_estimate import estimate_group
from orchestrator.sweeps.sweep import open_sweep
from orchestrator.sweeps.training_groups import share_workers
from supsup_core.errors import InputError


@click.command(epilog=example("supsup sweeps sweeps"))
@click.argument("folder", type=click.Path(path_type=Path), default="sweeps")
def sweeps(folder: Path) -> int:
    """List the sweep files of a folder, and estimate their cost.

    FOLDER is `sweeps` by default. The cost on this machine is shown for each scale of a file: `smoke` takes seconds,
    `cpu` takes hours at most on two cores, and `paper` is the file without a scale. The command starts no sweep. It
    times a few training batches of every method and network that is new to this machine.
    """
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise InputError(f"{folder}: contains no sweep files (*.yaml); name a folder with sweep files")
    for file in files:
        try:
            scales = [*scales_of(file), PAPER]
        except InputError as error:
            say(f"{file.stem}: is not a valid sweep file: {error}")
            continue
        say(f"{file.stem}: {_first_sentence(file)}", flush=True)
        for scale in scales:
            try:
                say(f"  {scale:6} {_cost(file, scale)}", flush=True)
            except InputError as error:
                say(f"  {scale:6} cannot be planned on this machine: {str(error).removeprefix(f'{file.absolute()}: ')}")
    say("\nrun a sweep file with: supsup sweep FILE scale=smoke")
    return ExitCode.DONE


def _cost(file: Path, scale: str) -> str:
    """Returns the estimated cost of a sweep file at a scale, as text. Raises InputError if the sweep is invalid."""
    sweep = open_sweep(file, [f"scale={scale}"])
    groups = sweep.plan()
    shares = share_workers(groups, sweep.config.resources.num_workers)
    total = total_cost(sweep, [estimate_group(g, GroupState(), g.size, shares[g.group_id]) for g in groups])
    return (
        f"{count(sum(len(group.runs) for group in groups), 'run')}, "
        f"{count(sum(group.size.shards for group in groups), 'task')} to train: "
        f"{duration(total.seconds)} on {count(total.num_workers, 'worker')}, {total.disk_bytes / 1e6:.0f} MB of disk, "
        f"{total.memory_bytes / 1e9:.1f} GB of memory"
    )


def _first_sentence(file: Path) -> str:
    """Returns the first sentence of the comment at the beginning of a sweep file, without its full stop."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text_of(file).splitlines())
    return " ".join(line.lstrip("# ") for line in lines).partition(". ")[0].rstrip(".")
