"""Verbs that say what sweeps would do and cost, and what they have done; they start nothing, and load no torch."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from orchestrator.config import PAPER, scales_of
from orchestrator.durations import duration
from orchestrator.estimate import Estimate, estimate_group
from orchestrator.plan import Group
from orchestrator.progress import line
from orchestrator.state import GroupState, read_states
from orchestrator.status import SweepStatus, sweep_status
from orchestrator.storage import ASKING_SECONDS, Storage
from orchestrator.stored_sweeps import fetch
from orchestrator.sweep import Sweep, all_sweeps, find_sweep, open_sweep
from supsup_core.errors import InputError


def plan(file: Path, overrides: Sequence[str], as_json: bool) -> int:
    """Print what a sweep would do and cost. Starts and writes nothing."""
    sweep = open_sweep(file, overrides)
    groups = sweep.plan()
    states = read_states(sweep)
    there = set(replace(sweep, patience=ASKING_SECONDS).store)
    forecasts = [_forecast(sweep, group, states.get(group.group_id, GroupState()), there) for group in groups]
    total, workers = _total(sweep, [forecast.cost for forecast in forecasts])
    if as_json:
        node = {
            "sweep_id": sweep.sweep_id,
            "output": str(sweep.output),
            "num_workers": workers,
            "estimate": asdict(total),
            "groups": [asdict(forecast) for forecast in forecasts],
        }
        print(json.dumps(node, indent=1))
        return 0
    print(f"{sweep.sweep_id}: {sum(len(f.runs) for f in forecasts)} runs in {len(forecasts)} training groups")
    for forecast in forecasts:
        print(
            f"  group {forecast.group_id} (seed {forecast.seed}): "
            f"{forecast.shards} shards, {forecast.shards_done} already done; "
            f"{forecast.evaluations} evaluations, {forecast.evaluations_done} already done"
        )
        for name in forecast.runs:
            print(f"    {name}")
    print(
        f"estimated: {duration(total.seconds)} on {workers} workers ({total.basis}), "
        f"{total.disk_bytes / 1e6:.1f} MB of disk, {total.memory_bytes / 1e9:.1f} GB of memory"
    )
    print(f"output: {sweep.output}")
    return 0


def stored_status(wanted: str | None, url: str, as_json: bool) -> int:
    """Print the status of one sweep of a storage, or of all, by the newest snapshots."""
    with tempfile.TemporaryDirectory() as scratch:
        (name, *others) = fetch(Storage(url, ASKING_SECONDS), Path(scratch), wanted)
        code = status(None if others and wanted is None else name, Path(scratch), as_json)
    if not as_json:
        print(f"by the newest snapshots in {url}: whether a sweep is running, only the machine knows that runs it")
    return code


def status(wanted: str | None, output: Path, as_json: bool) -> int:
    """Print the status of one sweep, or of all."""
    sweeps = [find_sweep(output, wanted)] if wanted else all_sweeps(output) or [find_sweep(output, None)]
    statuses = [_status(sweep) for sweep in sweeps]
    if as_json:
        nodes = [found.to_node() for found in statuses]
        print(json.dumps(nodes[0] if wanted else nodes, indent=1))
        return 0
    for found in statuses:
        _print(found)
    return 0


def _status(sweep: Sweep) -> SweepStatus:
    """From the ledgers alone."""
    return sweep_status(sweep, read_states(sweep), sweep.planned)


def _print(found: SweepStatus) -> None:
    process = f" (process {found.process})" if found.process else ""
    print(f"{found.sweep_id}: {found.state}{process}")
    print(f"  {line(found)}")
    for group in found.groups:
        print(
            f"  group {group.group_id} (seed {group.seed}): {group.state}, shards {group.shards_done}/{group.shards}, "
            f"evaluations {group.evaluations_done}/{group.evaluations}"
            + (f", {group.masks} masks" if group.masks is not None else "")
        )
        for lost in group.lost:
            print(f"    made again: {lost}")
        for stalled in group.stalled:
            print(f"    STALLED {stalled}")
        for task in group.cancelled:
            print(f"    cancelled: task {task}")
        for failure in group.failures:
            print(f"    FAILED {failure}")


def list_sweeps(folder: Path) -> int:
    """Print the sweep files of a folder, and what each costs at each of its scales on this machine."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise InputError(f"{folder}: no sweep files (*.yaml) here; name the folder that has some")
    for file in files:
        try:
            scales = [*scales_of(file), PAPER]
        except InputError as error:
            print(f"{file.stem}: not a sweep: {error}")
            continue
        print(f"{file.stem}: {_first_words(file)}", flush=True)
        for scale in scales:
            try:
                found = open_sweep(file, [f"scale={scale}"])
                groups = found.plan()
                workers = found.config.resources.num_workers
                costs = [estimate_group(g.experiment, GroupState(), g.size, g.size[0], workers) for g in groups]
            except InputError as error:
                print(f"  {scale:6} not here: {str(error).removeprefix(f'{file.absolute()}: ')}")
                continue
            total, workers = _total(found, costs)
            tasks = sum(group.size[0] for group in groups)
            print(
                f"  {scale:6} {sum(len(group.runs) for group in groups)} runs, {tasks} tasks to train: "
                f"{duration(total.seconds)} on {workers} workers, {total.disk_bytes / 1e6:.0f} MB of disk, "
                f"{total.memory_bytes / 1e9:.1f} GB of memory",
                flush=True,
            )
    print("\nrun one: supsup sweep FILE scale=smoke")
    return 0


def _first_words(file: Path) -> str:
    """The first sentence of the comment that a sweep file begins with."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), file.read_text().splitlines())
    return " ".join(line.lstrip("# ") for line in lines).partition(". ")[0].rstrip(".")


@dataclass(frozen=True)
class _Forecast:
    """One training group in a plan: its size, what of it is done, and the cost of the rest."""

    group_id: str
    seed: int
    runs: list[str]
    shards: int
    shards_done: int
    evaluations: int
    evaluations_done: int
    cost: Estimate


def _forecast(sweep: Sweep, group: Group, state: GroupState, there: Set[str]) -> _Forecast:
    shards, evaluations = group.size
    if group.experiment.allocation is None:
        trained = sum(shard.key in there for shard in group.shards)
        tested = sum(item.key in state.evaluated or item.key in there for item in group.evaluations)
    else:
        trained, tested = state.done_shards(), state.done_evaluations()
    left = (shards - trained, evaluations - tested)
    workers = sweep.config.resources.num_workers
    return _Forecast(
        group_id=group.group_id,
        seed=group.experiment.seed,
        runs=[run.name for run in group.runs],
        shards=shards,
        shards_done=trained,
        evaluations=evaluations,
        evaluations_done=tested,
        cost=estimate_group(group.experiment, state, left, shards, workers),
    )


def _total(sweep: Sweep, costs: Sequence[Estimate]) -> tuple[Estimate, int]:
    """What all groups cost, as many at once as this machine has room for, and the workers that are then at work."""
    resources = sweep.config.resources
    slots = torch.cuda.device_count() if resources.device == "cuda" else (os.cpu_count() or 1) // resources.threads
    room = max(1, slots // resources.num_workers)
    at_once = min(room, sum(cost.seconds > 0 for cost in costs) or 1)
    total = Estimate(
        seconds=max(sum(cost.seconds for cost in costs) / at_once, *(cost.seconds for cost in costs)),
        disk_bytes=sum(cost.disk_bytes for cost in costs),
        memory_bytes=sum(sorted(cost.memory_bytes for cost in costs)[-at_once:]),
        basis=costs[0].basis,
    )
    return total, resources.num_workers * at_once
