"""`supsup cluster check`."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import click

from orchestrator.base.wording import as_typed, count, say
from orchestrator.cli.arguments import OVERRIDES, example
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cluster.cluster_file import ClusterFile, NodeType, read_cluster_file
from orchestrator.sweeps.sweep import Sweep, open_sweep
from orchestrator.sweeps.training_groups import share_workers


@click.group()
def cluster() -> None:
    """Check the file from which `ray up` starts a Ray cluster."""


@cluster.command(epilog=example("supsup cluster check ray_cluster.yaml sweeps/fig04_split_imagenet.yaml"))
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("sweep_file", metavar="[SWEEP_FILE]", type=click.Path(path_type=Path), required=False)
@OVERRIDES
def check(file: Path, sweep_file: Path | None, overrides: tuple[str, ...]) -> int:
    """Check a Ray cluster file, and whether a sweep fits in the cluster.

    Needs no network connection. The command looks in FILE for settings that Ray or AWS would refuse, for secrets, for
    access without a token, and for spot machines without an on-demand worker. With SWEEP_FILE, it also checks that the
    workers of a training group fit in the cluster.
    """
    found = read_cluster_file(file)
    sweep = open_sweep(sweep_file, overrides) if sweep_file is not None else None
    for kind in found.node_types:
        say(f"  {_describe(kind)}")
    problems = [*found.problems, *([] if sweep is None or not found.node_types else _check_room(found, sweep))]
    for problem in problems:
        say(f"{as_typed(file)}: {problem}", file=sys.stderr)
    if problems:
        return ExitCode.BAD_INPUT
    say(f"{as_typed(file)}: valid; the cluster has at most {found.max_workers} worker nodes")
    return ExitCode.DONE


def _describe(kind: NodeType) -> str:
    """Returns a node type in one line: its name, the CPUs and GPUs of a node, and the number of nodes."""
    holds = " and ".join(f"{amount:g} {name}" for name, amount in (("CPU", kind.cpus), ("GPU", kind.gpus)) if amount)
    what = f"{kind.name}: {holds or 'no CPUs and no GPUs'}"
    if kind.is_head:
        return f"{what}; the head node"
    return f"{what}; {kind.least} to {kind.most} nodes{' on spot machines' if kind.is_spot else ''}"


def _check_room(found: ClusterFile, sweep: Sweep) -> list[str]:
    """Returns a list with one problem if the workers of a training group do not fit in the cluster.

    If the workers fit, prints how many training groups run at the same time, and returns an empty list.
    """
    resources = sweep.config.resources
    each = f"workers, each with {count(resources.threads, 'CPU')}" + (
        " and one GPU" if resources.device == "cuda" else ""
    )
    room = found.num_workers(resources)
    if room is None:
        return [
            "available_node_types: the number of CPUs or GPUs of a node type is missing; add CPU and GPU to the "
            "`resources` of every node type"
        ]
    if room < resources.num_workers:
        return [
            f"max_workers: {sweep.config.name} needs {resources.num_workers} {each}, for one training group, but the "
            f"cluster has room for {count(room, 'worker')}; raise max_workers, or set "
            f"resources.num_workers={max(room, 1)}"
        ]
    shares = list(share_workers(sweep.plan(), resources.num_workers).values())
    at_once = sum(used <= room for used in itertools.accumulate(shares))
    sizes = " or ".join(map(str, sorted(set(shares))))
    say(
        f"  {sweep.config.name}: {len(shares)} training groups with {sizes} {each}; {at_once} of the groups run at "
        "the same time"
    )
    if resources.device != "cuda" and any(kind.gpus for kind in found.node_types):
        say("  the cluster's GPUs would be idle, because resources.device is cpu; set resources.device=cuda")
    return []
