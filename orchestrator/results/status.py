"""Computes the status of a sweep and its training groups from their ledgers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from orchestrator.base.folder_lock import holder_of
from orchestrator.base.output_folder import SweepFolder
from orchestrator.base.plain_values import Node, to_node
from orchestrator.coordination.control_files import waiting_texts
from orchestrator.records.group_state import GroupState
from orchestrator.records.machine_kind import MachineKind
from orchestrator.records.planned_group import GroupSize
from orchestrator.records.rows import ArtifactLost, Row, TaskEvaluated
from orchestrator.results.event_log import describe_stalled


@dataclass(frozen=True)
class GroupStatus:
    """The status of one training group.

    `accuracy`: the mean accuracy so far, in [0, 1]. `train_seconds`, `evaluate_seconds`: the mean seconds that a worker
    took for a recent shard or evaluation. `accuracy`, `train_seconds` and `evaluate_seconds` are None until there is a
    result. `masks`: the number of masks in use in NNs; None in other scenarios. `at_work`: whether a worker has trained
    or evaluated anything since the sweep was last started or resumed, and the group has not ended. `shards`: the number
    of planned shards, without cancelled tasks. `evaluations`: the number of planned evaluations. If the group was
    stopped, `shards` and `evaluations` count only finished shards and evaluations. `cancelled`: the numbers of the
    cancelled tasks. `machines`: the kinds of all machines that contributed to the results so far.
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
    machines: tuple[MachineKind, ...]


@dataclass(frozen=True)
class SweepStatus:
    """The status of a whole sweep.

    `state`: done, running, failed, interrupted or planned. `process`: the id of the process on this machine that runs
    the sweep, or None. `eta`: the remaining seconds. `tasks_per_second` and `eta` are estimated from the times of
    recent jobs and the number of workers at work. `waiting`: texts that say for which cluster resources the training
    groups wait now.
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
    waiting: list[str]

    def state_when_idle(self) -> str:
        """Returns the state of a sweep that no process runs: done, failed, interrupted or planned."""
        if any(group.failures for group in self.groups):
            return "failed"
        complete = self.shards_done == self.shards and self.evaluations_done == self.evaluations
        if complete and all(group.state in ("done", "stopped") for group in self.groups):
            return "done"
        return "interrupted" if any(group.shards for group in self.groups) else "planned"

    def to_node(self) -> Node:
        """Returns the status as plain JSON values."""
        return to_node(self)


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None


def _recent_seconds(rows: Iterable[Row[TaskEvaluated]]) -> float | None:
    """Returns the mean seconds of the last 50 evaluations that were not reused from the store; None if there are
    none."""
    return _mean([row.event.seconds for row in rows if row.event.seconds][-50:])


def group_status(group_id: str, state: GroupState) -> GroupStatus:
    """Returns the status of one group. state: the state replayed from the group's ledger."""
    if state.plan is None:
        return GroupStatus(group_id, 0, [], "planned", 0, 0, 0, 0, None, None, 1, False, None, None, [], [], [], [], ())
    group, workers = state.group, state.environment.num_workers
    shards_done, evaluations_done = state.done_shards(), state.done_evaluations()
    train_seconds = _mean(state.shard_seconds()[-50:])
    if (pace := state.seconds_per_task()) is not None:
        train_seconds = pace * workers
    return GroupStatus(
        group_id=group_id,
        seed=group.seed,
        runs=[run.name for run in group.runs],
        state=state.status,
        shards_done=shards_done,
        shards=shards_done if state.given_up else group.size.shards - len(state.cancelled),
        evaluations_done=evaluations_done,
        evaluations=evaluations_done if state.given_up else group.size.evaluations,
        accuracy=_accuracy_so_far(state),
        masks=state.num_masks(),
        num_workers=workers,
        at_work=state.at_work,
        train_seconds=train_seconds,
        evaluate_seconds=_recent_seconds(state.evaluated.values()),
        failures=[f"{row.event.what}: {row.event.error}" for row in state.failed.values()],
        lost=[_describe_lost(row.event) for row in state.lost],
        stalled=[describe_stalled(row.event) for row in state.stalled.values()],
        cancelled=sorted(row.event.task for row in state.cancelled.values()),
        machines=tuple(state.machines),
    )


def _accuracy_so_far(state: GroupState) -> float | None:
    """Returns the mean accuracy of the trained tasks, each evaluated with its own mask; None if no accuracy is known.

    In NNs, returns the accuracy at the last complete evaluation point.
    """
    if state.due and state.points:
        return max(state.points.values(), key=lambda row: row.seq).event.metrics["accuracy"]
    accuracies = [row.event.facts.accuracy for row in state.trained.values()]
    return _mean([value for value in accuracies if value is not None])


def _describe_lost(event: ArtifactLost) -> str:
    """Returns `FILE: REASON` for a missing or damaged file. Does not repeat the file's name if the reason starts with
    it."""
    return f"{event.file}: {event.reason.removeprefix(f'{event.file}: ')}"


def sweep_status(
    folder: SweepFolder, states: Mapping[str, GroupState], planned: Mapping[str, GroupSize]
) -> SweepStatus:
    """Returns the status of a sweep.

    states: the state of each training group by id; a group that has not started may be absent. planned: the size of
    each group by id.
    """
    groups = [group_status(group_id, states.get(group_id, GroupState())) for group_id in planned]
    process = holder_of(folder.path)
    if process is None:
        groups = [replace(group, state="interrupted") if group.state == "running" else group for group in groups]
    train_seconds = _mean([group.train_seconds for group in groups if group.train_seconds])
    evaluate_seconds = _mean([group.evaluate_seconds for group in groups if group.evaluate_seconds])
    shortened = [group for group in groups if group.state == "stopped" or group.cancelled]
    sizes = {**planned, **{group.group_id: GroupSize(group.shards, group.evaluations) for group in shortened}}
    shards = sum(size.shards for size in sizes.values())
    evaluations = sum(size.evaluations for size in sizes.values())
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
        sweep_id=folder.sweep_id,
        state="running",
        process=process,
        shards_done=shards_done,
        shards=shards,
        evaluations_done=evaluations_done,
        evaluations=evaluations,
        accuracy=_mean([group.accuracy for group in groups if group.accuracy is not None]),
        tasks_per_second=workers / train_seconds if train_seconds else None,
        eta=eta,
        groups=groups,
        waiting=[] if process is None else waiting_texts(folder),
    )
    return found if process is not None else replace(found, state=found.state_when_idle())
