"""Verbs that say what sweeps would do and cost, and what they have done; they start nothing, and load no torch."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from orchestrator.base.wording import duration
from orchestrator.records.group_state import GroupState
from orchestrator.records.object_storage import ASKING_SECONDS, Storage
from orchestrator.results.progress_line import line
from orchestrator.results.status import SweepStatus, sweep_status
from orchestrator.spec.sweep_config import PAPER, scales_of
from orchestrator.sweeps.cost_estimate import Estimate, estimate_group
from orchestrator.sweeps.lookup import all_sweeps, find_sweep, open_sweep, read_states
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.sweep_transfer import fetch
from orchestrator.sweeps.training_groups import Group, share_workers
from supsup_core.errors import InputError


def plan(file: Path, overrides: Sequence[str], as_json: bool) -> int:
    """Print what a sweep would do and cost. Starts and writes nothing."""
    sweep = open_sweep(file, overrides)
    groups = sweep.plan()
    states = read_states(sweep)
    there = set(replace(sweep, patience=ASKING_SECONDS).store)
    forecasts = _forecasts(sweep, groups, states, there)
    total = _total(sweep, [forecast.cost for forecast in forecasts])
    if as_json:
        node = {
            "sweep_id": sweep.sweep_id,
            "output": str(sweep.output),
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
        f"estimated: {duration(total.seconds)} on {total.num_workers} workers ({total.basis}), "
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
                shares = share_workers(groups, found.config.resources.num_workers)
                costs = [estimate_group(g, GroupState(), g.size, shares[g.group_id]) for g in groups]
            except InputError as error:
                print(f"  {scale:6} not here: {str(error).removeprefix(f'{file.absolute()}: ')}")
                continue
            total = _total(found, costs)
            tasks = sum(group.size[0] for group in groups)
            print(
                f"  {scale:6} {sum(len(group.runs) for group in groups)} runs, {tasks} tasks to train: "
                f"{duration(total.seconds)} on {total.num_workers} workers, {total.disk_bytes / 1e6:.0f} MB of disk, "
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


def _forecasts(
    sweep: Sweep, groups: Sequence[Group], states: Mapping[str, GroupState], there: Set[str]
) -> list[_Forecast]:
    """`there`: the keys of all that is in the sweep's store."""
    states = {group.group_id: states.get(group.group_id, GroupState()) for group in groups}
    done = {group.group_id: _done(group, states[group.group_id], there) for group in groups}
    unfinished = [group for group in groups if done[group.group_id] != group.size]
    shares = share_workers(unfinished, sweep.config.resources.num_workers)
    found = []
    for group in groups:
        (shards, evaluations), (trained, tested) = group.size, done[group.group_id]
        left = (shards - trained, evaluations - tested)
        forecast = _Forecast(
            group_id=group.group_id,
            seed=group.experiment.seed,
            runs=[run.name for run in group.runs],
            shards=shards,
            shards_done=trained,
            evaluations=evaluations,
            evaluations_done=tested,
            cost=estimate_group(group, states[group.group_id], left, shares.get(group.group_id, 1)),
        )
        found.append(forecast)
    return found


def _done(group: Group, state: GroupState, there: Set[str]) -> tuple[int, int]:
    """How many shards and evaluations of a group are there already."""
    if group.experiment.allocation is not None:
        return state.done_shards(), state.done_evaluations()
    trained = sum(shard.key in there for shard in group.shards)
    return trained, sum(item.key in state.evaluated or item.key in there for item in group.evaluations)


def _total(sweep: Sweep, costs: Sequence[Estimate]) -> Estimate:
    """What all groups cost, as many at once as this machine has room for."""
    resources = sweep.config.resources
    slots = torch.cuda.device_count() if resources.device == "cuda" else (os.cpu_count() or 1) // resources.threads
    slots = max(slots, resources.num_workers)
    left = [cost for cost in costs if cost.seconds > 0] or costs[:1]
    widest = max(cost.num_workers for cost in left)
    workers = min(slots // widest * widest, sum(cost.num_workers for cost in left))
    memory, taken = 0, 0
    for cost in sorted(left, key=lambda cost: cost.memory_bytes, reverse=True):
        if taken + cost.num_workers <= workers:
            taken += cost.num_workers
            memory += cost.memory_bytes
    return Estimate(
        seconds=max(sum(cost.seconds * cost.num_workers for cost in left) / workers, *(cost.seconds for cost in left)),
        num_workers=workers,
        disk_bytes=sum(cost.disk_bytes for cost in costs),
        memory_bytes=memory,
        basis=costs[0].basis,
    )
