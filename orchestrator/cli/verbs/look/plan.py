"""`supsup plan`."""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from orchestrator.base.wording import count, duration, say
from orchestrator.cli.arguments import JSON, OVERRIDES, SWEEP_FILE, example
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.total_cost import total_cost
from orchestrator.records.group_state import GroupState, needed_evaluations
from orchestrator.records.object_storage import ASKING_SECONDS
from orchestrator.records.planned_group import GroupSize
from orchestrator.sweeps.cost_estimate import Estimate, estimate_group
from orchestrator.sweeps.lookup import read_states
from orchestrator.sweeps.sweep import Sweep, open_sweep
from orchestrator.sweeps.training_groups import Group, share_workers


@click.command(epilog=example("supsup plan sweeps/quickstart.yaml benchmark.num_tasks=5 --json"))
@SWEEP_FILE
@OVERRIDES
@JSON
def plan(file: Path, overrides: tuple[str, ...], as_json: bool) -> int:
    """Show a sweep file's runs, and estimate time, disk and memory.

    Starts no run and does not change the output. The estimate covers the work that is not done yet. If a network and
    method are new to this machine, the command times a few training batches.
    """
    sweep = open_sweep(file, overrides)
    forecasts = _forecasts(sweep, sweep.plan())
    total = total_cost(sweep, [forecast.cost for forecast in forecasts])
    if as_json:
        node = {
            "sweep_id": sweep.sweep_id,
            "output": str(sweep.output.path),
            "estimate": asdict(total),
            "groups": [asdict(forecast) for forecast in forecasts],
        }
        say(json.dumps(node, indent=1))
    else:
        _print(sweep, forecasts, total)
    return ExitCode.DONE


@dataclass(frozen=True)
class _Forecast:
    """One training group in a plan: its size, the work that is done, and the cost of the remaining work."""

    group_id: str
    seed: int
    runs: list[str]
    shards: int
    shards_done: int
    evaluations: int
    evaluations_done: int
    cost: Estimate


def _forecasts(sweep: Sweep, groups: Sequence[Group]) -> list[_Forecast]:
    """Returns the forecast of each group. The unfinished groups share the sweep's workers."""
    known = read_states(sweep.folder, sweep.planned)
    stored = set(replace(sweep, patience=ASKING_SECONDS).store)
    states = {group.group_id: known.get(group.group_id, GroupState()) for group in groups}
    done = {group.group_id: _done(group, states[group.group_id], stored) for group in groups}
    unfinished = [group for group in groups if done[group.group_id] != group.size]
    shares = share_workers(unfinished, sweep.config.resources.num_workers)
    return [
        _forecast(group, states[group.group_id], done[group.group_id], shares.get(group.group_id, 1))
        for group in groups
    ]


def _forecast(group: Group, state: GroupState, done: GroupSize, num_workers: int) -> _Forecast:
    """Returns the forecast of a group. done: the finished work. num_workers: how many workers the group gets."""
    size = group.size
    left = GroupSize(size.shards - done.shards, size.evaluations - done.evaluations)
    return _Forecast(
        group_id=group.group_id,
        seed=group.experiment.seed,
        runs=[run.name for run in group.runs],
        shards=size.shards,
        shards_done=done.shards,
        evaluations=size.evaluations,
        evaluations_done=done.evaluations,
        cost=estimate_group(group, state, left, num_workers),
    )


def _done(group: Group, state: GroupState, stored: Set[str]) -> GroupSize:
    """Returns how many shards and evaluations of a group are done. stored: the keys of all artifacts in the store."""
    if group.experiment.allocation is not None:
        return GroupSize(state.done_shards(), state.done_evaluations())
    shards = sum(shard.key in stored for shard in group.shards)
    left = needed_evaluations(group.planned(), state.points) - state.evaluated.keys() - stored
    return GroupSize(shards, sum(one.key not in left for one in group.evaluations))


def _print(sweep: Sweep, forecasts: Sequence[_Forecast], total: Estimate) -> None:
    runs = count(sum(len(forecast.runs) for forecast in forecasts), "run")
    say(f"{sweep.sweep_id}: {runs} in {count(len(forecasts), 'training group')}")
    for forecast in forecasts:
        say(
            f"  group {forecast.group_id} (seed {forecast.seed}): "
            f"{count(forecast.shards, 'shard')}, {forecast.shards_done} already done; "
            f"{count(forecast.evaluations, 'evaluation')}, {forecast.evaluations_done} already done"
        )
        for name in forecast.runs:
            say(f"    {name}")
    say(
        f"estimated: {duration(total.seconds)} on {count(total.num_workers, 'worker')} ({total.basis}), "
        f"{total.disk_bytes / 1e6:.1f} MB of disk, {total.memory_bytes / 1e9:.1f} GB of memory"
    )
    say(f"output: {sweep.output.path}")
