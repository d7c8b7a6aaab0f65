"""What is done, running, failed and left, from the ledgers alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from orchestrator.base.folder_lock import holder_of
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import Row
from orchestrator.results.event_log import stalled_words
from orchestrator.sweeps.sweep import Sweep


@dataclass(frozen=True)
class GroupStatus:
    """One training group. Accuracy in [0, 1]; `*_seconds` are means of recent jobs; None: not known yet.

    `masks`: in use in NNs, else None. `at_work`: whether its last launch has begun with what was to be done. What was
    stopped is as large as it has become. `cancelled`: tasks that are given up.
    """

    group_id: str
    seed: int
    runs: list[str]
    state: str
    shards_done: int
    shards: int
    evaluations_done: int
    evaluations: int
    accuracy: float | None
    masks: int | None
    num_workers: int
    at_work: bool
    train_seconds: float | None
    evaluate_seconds: float | None
    failures: list[str]
    lost: list[str]
    stalled: list[str]
    cancelled: list[int]


@dataclass(frozen=True)
class SweepStatus:
    """A whole sweep: done, running, failed, interrupted or planned, and its groups.

    `tasks_per_second` and `eta` (seconds) count the workers of all groups that run at once.
    """

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
        if complete and all(group.state in ("done", "stopped") for group in self.groups):
            return "done"
        return "interrupted" if any(group.shards for group in self.groups) else "planned"

    def to_node(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None


def _recent_seconds(rows: Iterable[Row]) -> float | None:
    """Mean seconds of the last jobs that were really done, not found."""
    return _mean([row.payload["seconds"] for row in rows if row.payload["seconds"]][-50:])


def group_status(group_id: str, state: GroupState) -> GroupStatus:
    """The status of one group from its replayed state."""
    if not state.plan:
        return GroupStatus(group_id, 0, [], "planned", 0, 0, 0, 0, None, None, 1, False, None, None, [], [], [], [])
    group = state.group
    shards_done, evaluations_done = state.done_shards(), state.done_evaluations()
    accuracies = [row.payload["facts"]["accuracy"] for row in state.trained.values()]
    train_seconds = _mean(state.shard_seconds()[-50:])
    evaluate_seconds = _recent_seconds(state.evaluated.values())
    workers = state.plan["environment"]["num_workers"]
    if (pace := state.seconds_per_task()) is not None:
        train_seconds = pace * workers
    if state.due and state.points:  # NNs: what was last measured
        accuracies = [max(state.points.values(), key=lambda row: row.seq).payload["metrics"]["accuracy"]]
    return GroupStatus(
        group_id=group_id,
        seed=group["seed"],
        runs=[run["name"] for run in group["runs"]],
        state=state.status,
        shards_done=shards_done,
        shards=shards_done if state.given_up else group["size"][0] - len(state.cancelled),
        evaluations_done=evaluations_done,
        evaluations=evaluations_done if state.given_up else group["size"][1],
        accuracy=_mean([value for value in accuracies if value is not None]),
        masks=state.num_masks(),
        num_workers=workers,
        at_work=state.at_work,
        train_seconds=train_seconds,
        evaluate_seconds=evaluate_seconds,
        failures=[f"{row.payload['what']}: {row.payload['error']}" for row in state.failed.values()],
        lost=[_lost(row.payload["file"], row.payload["reason"]) for row in state.lost],
        stalled=[stalled_words(row.payload) for row in state.stalled.values()],
        cancelled=sorted(row.payload["task"] for row in state.cancelled.values()),
    )


def _lost(file: str, reason: str) -> str:
    """A file that was missing or damaged and why, which may begin with its name."""
    return f"{file}: {reason.removeprefix(f'{file}: ')}"


def sweep_status(sweep: Sweep, states: dict[str, GroupState], planned: dict[str, tuple[int, int]]) -> SweepStatus:
    """The status of a sweep. planned: shards and evaluations of each of its groups."""
    groups = [group_status(group_id, states.get(group_id, GroupState())) for group_id in planned]
    process = holder_of(sweep.path)
    if process is None:
        groups = [replace(group, state="interrupted") if group.state == "running" else group for group in groups]
    train_seconds = _mean([group.train_seconds for group in groups if group.train_seconds])
    evaluate_seconds = _mean([group.evaluate_seconds for group in groups if group.evaluate_seconds])
    accuracies = [group.accuracy for group in groups if group.accuracy is not None]
    less = [group for group in groups if group.state == "stopped" or group.cancelled]
    sizes = planned | {group.group_id: (group.shards, group.evaluations) for group in less}
    shards = sum(shards for shards, _ in sizes.values())
    evaluations = sum(evaluations for _, evaluations in sizes.values())
    shards_done = sum(group.shards_done for group in groups)
    evaluations_done = sum(group.evaluations_done for group in groups)
    at_work = sum(group.num_workers for group in groups if group.at_work)
    workers = at_work or max((group.num_workers for group in groups), default=1)
    eta = None
    if train_seconds or evaluate_seconds or (shards_done, evaluations_done) == (shards, evaluations):
        left = (shards - shards_done) * (train_seconds or 0)
        left += (evaluations - evaluations_done) * (evaluate_seconds or 0)
        eta = left / workers
    found = SweepStatus(
        sweep_id=sweep.sweep_id,
        state="running",
        process=process,
        shards_done=shards_done,
        shards=shards,
        evaluations_done=evaluations_done,
        evaluations=evaluations,
        accuracy=_mean(accuracies),
        tasks_per_second=workers / train_seconds if train_seconds else None,
        eta=eta,
        groups=groups,
    )
    return found if process is not None else replace(found, state=found.state_when_idle())
