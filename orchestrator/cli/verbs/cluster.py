"""Verbs about Ray clusters."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestrator.base.wording import as_typed
from orchestrator.cluster.cluster_file import ClusterFile, NodeType, read_cluster_file
from orchestrator.sweeps.lookup import open_sweep
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.training_groups import share_workers

SOUND, UNSOUND = 0, 2


def check(file: Path, sweep_file: Path | None, overrides: Sequence[str]) -> int:
    """Print what a cluster's file stands for, all that is wrong with it, and whether a sweep has room there."""
    found = read_cluster_file(file)
    sweep = open_sweep(sweep_file, overrides) if sweep_file is not None else None
    for kind in found.node_types:
        print(f"  {_described(kind)}")
    problems = [*found.problems, *([] if sweep is None or not found.node_types else _room(found, sweep))]
    for problem in problems:
        print(f"{as_typed(file)}: {problem}", file=sys.stderr)
    if problems:
        return UNSOUND
    print(f"{as_typed(file)}: sound; at most {found.max_workers} nodes beside the head")
    return SOUND


def _described(kind: NodeType) -> str:
    holds = " and ".join(f"{amount:g} {name}" for name, amount in (("CPU", kind.cpus), ("GPU", kind.gpus)) if amount)
    what = f"{kind.name}: {holds or 'no resources of its own'}"
    if kind.is_head:
        return f"{what}; the head"
    return f"{what}; {kind.least} to {kind.most} of them{', spot' if kind.is_spot else ''}"


def _room(found: ClusterFile, sweep: Sweep) -> list[str]:
    """What stands between a sweep and this cluster, if anything; else says how it fits."""
    resources = sweep.config.resources
    each = f"workers of {resources.threads} CPU" + (" and a GPU each" if resources.device == "cuda" else "")
    room = found.num_workers(resources)
    if room is None:
        return [
            "available_node_types: give each type its resources (CPU, GPU), so that a sweep can be held against them"
        ]
    if room < resources.num_workers:
        return [
            f"max_workers: {sweep.config.name} needs {resources.num_workers} {each} for a training group, and there is "
            f"room for {room}; raise it, or set resources.num_workers={max(room, 1)}"
        ]
    shares = list(share_workers(sweep.plan(), resources.num_workers).values())
    at_once = sum(taken <= room for taken in itertools.accumulate(shares))
    sizes = " or ".join(map(str, sorted(set(shares))))
    print(f"  {sweep.config.name}: {len(shares)} training groups of {sizes} {each}: {at_once} at once")
    if resources.device != "cuda" and any(kind.gpus for kind in found.node_types):
        print("  its GPUs would idle: resources.device is cpu; add resources.device=cuda")
    return []
