"""What is done, running, failed and left, from the ledgers alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from orchestrator.files import holder_of
from orchestrator.ledger import LedgerReader
from orchestrator.state import GroupState
from orchestrator.sweep import Sweep


@dataclass(frozen=True)
class GroupStatus:
    """One training group. Times in seconds, None where nothing is known yet; accuracy in [0, 1]."""

    group_id: str
    seed: int
    runs: list[str]
    state: str
    shards_done: int
    shards: int
    evaluations_done: int
    evaluations: int
    accuracy: float | None
    tasks_per_second: float | None
    eta: float | None
    failures: list[str]
    lost: list[str]


@dataclass(frozen=True)
class SweepStatus:
    """A whole sweep: done, running, failed, interrupted or planned, and its groups."""

    sweep_id: str
    state: str
    process: int | None
    shards_done: int
    shards: int
    evaluations_done: int
    evaluations: int
    accuracy: float | None
    tasks_per_second: float | None
    eta: float | None
    groups: list[GroupStatus]

    def state_when_idle(self) -> str:
        """The state without regard to a process that is still at it: done, failed, interrupted or planned."""
        if any(group.failures for group in self.groups):
            return "failed"
        complete = self.shards_done == self.shards and self.evaluations_done == self.evaluations
        if complete and all(group.state == "done" for group in self.groups):
            return "done"
        return "interrupted" if any(group.shards for group in self.groups) else "planned"

    def to_node(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None


def group_status(group_id: str, state: GroupState) -> GroupStatus:
    """The status of one group from its replayed state."""
    if not state.plan:
        return GroupStatus(group_id, 0, [], "planned", 0, 0, 0, 0, None, None, None, [], [])
    group = state.group
    shards_done, evaluations_done = state.done_shards(), state.done_evaluations()
    trained = list(state.trained.values())
    accuracies = [row.payload["facts"]["accuracy"] for row in trained]
    train_seconds = [row.payload["seconds"] for row in trained if row.payload["seconds"]]
    evaluate_seconds = [row.payload["seconds"] for row in state.evaluated.values() if row.payload["seconds"]]
    workers = state.plan["environment"]["num_workers"]
    remaining: float | None = 0.0
    for left, seconds in (
        (len(group["shards"]) - shards_done, _mean(train_seconds[-50:])),
        (len(group["evaluations"]) - evaluations_done, _mean(evaluate_seconds[-50:])),
    ):
        if left and seconds is None and left == len(group["evaluations"]) and evaluations_done == 0:
            continue  # not one evaluation timed yet: the training alone is the best estimate
        remaining = None if remaining is None or (left and seconds is None) else remaining + left * (seconds or 0)
    return GroupStatus(
        group_id=group_id,
        seed=group["seed"],
        runs=[run["name"] for run in group["runs"]],
        state=state.status,
        shards_done=shards_done,
        shards=len(group["shards"]),
        evaluations_done=evaluations_done,
        evaluations=len(group["evaluations"]),
        accuracy=_mean([value for value in accuracies if value is not None]),
        tasks_per_second=workers / fmean(train_seconds[-50:]) if train_seconds else None,
        eta=None if remaining is None else remaining / workers,
        failures=[f"{row.payload['what']}: {row.payload['error']}" for row in state.failed.values()],
        lost=[f"{row.payload['file']}: {row.payload['reason']}" for row in state.lost],
    )


def read_states(sweep: Sweep) -> dict[str, GroupState]:
    """The replayed state of every group that the sweep last planned."""
    states = {}
    for path in sorted((sweep.path / "groups").glob("*/ledger.sqlite")):
        with LedgerReader(path) as reader:
            states[path.parent.name] = GroupState().apply(reader.rows())
    return states


def sweep_status(sweep: Sweep, states: dict[str, GroupState], planned: dict[str, tuple[int, int]]) -> SweepStatus:
    """The status of a sweep. planned: shards and evaluations of each of its groups."""
    groups = [group_status(group_id, states.get(group_id, GroupState())) for group_id in planned]
    process = holder_of(sweep.path)
    accuracies = [group.accuracy for group in groups if group.accuracy is not None]
    rates = [group.tasks_per_second for group in groups if group.tasks_per_second is not None]
    found = SweepStatus(
        sweep_id=sweep.sweep_id,
        state="running",
        process=process,
        shards_done=sum(group.shards_done for group in groups),
        shards=sum(shards for shards, _ in planned.values()),
        evaluations_done=sum(group.evaluations_done for group in groups),
        evaluations=sum(evaluations for _, evaluations in planned.values()),
        accuracy=_mean(accuracies),
        tasks_per_second=_mean(rates),
        eta=_eta(groups, planned),
        groups=groups,
    )
    return found if process is not None else replace(found, state=found.state_when_idle())


def _eta(groups: list[GroupStatus], planned: dict[str, tuple[int, int]]) -> float | None:
    """Seconds left over all groups, one after the other.

    A group not begun takes what the others take a task on average; its evaluations are not foreseen.
    """
    begun = [group for group in groups if group.shards]
    known = [group.eta for group in begun if group.eta is not None]
    if not known:
        return None
    rates = [group.tasks_per_second for group in begun if group.tasks_per_second]
    waiting = sum(planned[group.group_id][0] for group in groups if not group.shards)
    return sum(known) + (waiting / fmean(rates) if rates else 0.0)
