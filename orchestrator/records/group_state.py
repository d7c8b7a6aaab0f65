"""Computes the state of a training group by replaying the rows of its ledger."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

from orchestrator.records.machine_kind import Machines, joined
from orchestrator.records.planned_group import PlannedGroup
from orchestrator.records.rows import (
    AnyRow,
    ArtifactLost,
    EvaluationDue,
    GroupEnd,
    GroupPlanned,
    GroupStopped,
    JobFailed,
    JobRetried,
    JobSplit,
    JobStalled,
    LaunchEnded,
    LaunchEnvironment,
    PointCompleted,
    RetryRequested,
    RoundsCommitted,
    Row,
    RunForked,
    SegmentDecided,
    ShardTrained,
    TaskCancelled,
    TaskEvaluated,
    TasksMet,
)
from supsup_core.errors import CorruptError
from supsup_core.evaluation.counts import ProtocolCounts

GroupStatus: TypeAlias = Literal["planned", "running", "interrupted"] | GroupEnd

LaunchStatus: TypeAlias = Literal["interrupted"] | GroupEnd
"""How a training group ended in a launch. `interrupted`: the group can be resumed."""

ENDED: tuple[GroupEnd, ...] = get_args(GroupEnd)


@dataclass
class GroupState:
    """The state of a training group. `apply` replays ledger rows in order; the same rows give the same state.

    `plan`: None until the group is planned. `trained`, `evaluated`, `failed`, `stalled`, `cancelled`: rows by the key
    of the shard, evaluation or job. `points`: rows by run id and number of tasks learned. `met`, `due`: rows or
    events by number of tasks learned. `retried`: maps a job's key to the number of workers that died during the job,
    without workers whose node died. `to_retrain`: keys of shards whose artifacts were lost after training, and that
    were not trained again. `forked`: where the group started, if it is part of a fork. `split`: keys of jobs that did
    not fit into memory. `earlier_commits`: the number of commits before the last launch. `contributors`: the distinct
    sets of machine kinds that computed a result. `at_work`: whether a worker has trained or evaluated anything in the
    last launch, and the launch has not ended.
    """

    plan: GroupPlanned | None = None
    trained: dict[str, Row[ShardTrained]] = field(default_factory=dict)
    evaluated: dict[str, Row[TaskEvaluated]] = field(default_factory=dict)
    points: dict[tuple[str, int], Row[PointCompleted]] = field(default_factory=dict)
    failed: dict[str, Row[JobFailed]] = field(default_factory=dict)
    lost: list[Row[ArtifactLost]] = field(default_factory=list)
    to_retrain: set[str] = field(default_factory=set)
    retried: dict[str, int] = field(default_factory=dict)
    split: set[str] = field(default_factory=set)
    decisions: list[Row[SegmentDecided]] = field(default_factory=list)
    met: dict[int, Row[TasksMet]] = field(default_factory=dict)
    due: dict[int, EvaluationDue] = field(default_factory=dict)
    forked: Row[RunForked] | None = None
    commits: list[Row[RoundsCommitted]] = field(default_factory=list)
    earlier_commits: int = 0
    stalled: dict[str, Row[JobStalled]] = field(default_factory=dict)
    cancelled: dict[str, Row[TaskCancelled]] = field(default_factory=dict)
    stopped: Row[GroupStopped] | None = None
    status: GroupStatus = "planned"
    contributors: set[Machines] = field(default_factory=set)
    at_work: bool = False
    last: AnyRow | None = None

    def apply(self, rows: Iterable[AnyRow]) -> GroupState:
        """Applies the next rows and returns this object. Raises CorruptError if a row contradicts earlier rows."""
        for row in rows:
            try:
                self._apply_work(row) or self._apply_nns(row) or self._apply_trouble(row) or self._apply_launch(row)
            except KeyError as error:
                raise CorruptError(f"ledger row {row.seq}: does not fit the rows before it ({error!r})") from error
            self.last = row
        return self

    def _apply_work(self, row: AnyRow) -> bool:
        """Applies a row about a trained task, an evaluation or an evaluation point. Returns False for other rows."""
        event = row.event
        match event:
            case ShardTrained():
                self.trained.setdefault(event.key, Row(row.seq, row.time_ms, event))
                self.to_retrain.discard(event.key)
                self.cancelled.pop(event.key, None)
            case TaskEvaluated():
                self.evaluated.setdefault(event.key, Row(row.seq, row.time_ms, event))
            case PointCompleted():
                point = Row(row.seq, row.time_ms, _without_old_forgetting(event))
                self.points.setdefault((event.run_id, event.num_learned), point)
                return True
            case _:
                return False
        self.status = "running"
        self.contributors.add(event.facts.machines)
        self.at_work |= bool(event.seconds)
        self.stalled = {key: other for key, other in self.stalled.items() if other.event.worker != event.worker}
        return True

    def _apply_nns(self, row: AnyRow) -> bool:
        """Applies a row that only occurs in scenario NNs. Returns False for other rows."""
        event = row.event
        match event:
            case SegmentDecided():
                self.status = "running"
                self.at_work = True
                self.decisions.append(Row(row.seq, row.time_ms, event))
            case TasksMet():
                self.met.setdefault(event.num_learned, Row(row.seq, row.time_ms, event))
            case EvaluationDue():
                self.due.setdefault(event.num_learned, event)
            case RoundsCommitted():
                self.commits.append(Row(row.seq, row.time_ms, event))
                self.contributors.add(event.machines)
                self.stalled.clear()
            case RunForked():
                self.forked = Row(row.seq, row.time_ms, event)
            case _:
                return False
        return True

    def _apply_trouble(self, row: AnyRow) -> bool:
        """Applies a row about a lost artifact, a job in trouble or a cancelled task. Returns False for other rows."""
        event = row.event
        match event:
            case ArtifactLost():
                if self.trained.pop(event.key, None) is not None:
                    self.to_retrain.add(event.key)
                self.lost.append(Row(row.seq, row.time_ms, event))
                return True
            case JobRetried():
                self.retried[event.key] = self.retried.get(event.key, 0) + (not event.free)
            case JobSplit():
                self.split.add(event.key)
            case JobStalled():
                self.stalled[event.key] = Row(row.seq, row.time_ms, event)
                return True
            case JobFailed():
                self.failed[event.key] = Row(row.seq, row.time_ms, event)
            case TaskCancelled():
                self.cancelled[event.key] = Row(row.seq, row.time_ms, event)
                self.failed.pop(event.key, None)
            case _:
                return False
        self.stalled.pop(event.key, None)
        return True

    def _apply_launch(self, row: AnyRow) -> bool:
        """Applies a row about the start, end, stop or retry of the whole group. Returns False for other rows."""
        event = row.event
        match event:
            case GroupPlanned():
                self.plan = event
                if self.status in ENDED:
                    self.lost.clear()  # these artifacts were reported or rebuilt before the group ended
                self.failed.clear()
                self.retried.clear()
                self.stalled.clear()
                self.at_work = False
                self.earlier_commits = len(self.commits)
                self.status = "planned"
            case GroupStopped():
                self.stopped = Row(row.seq, row.time_ms, event)
                self.status = "stopped"
            case RetryRequested():
                self.stopped = None
                self.failed.clear()
                self.cancelled = {
                    key: other
                    for key, other in self.cancelled.items()
                    if event.tasks and other.event.task not in event.tasks
                }
                self.status = "interrupted"
            case LaunchEnded():
                self.status = event.status
                self.at_work = False
            case _:
                return False
        return True

    def results_of(self, keys: Iterable[str]) -> dict[int, dict[str, ProtocolCounts]]:
        """Returns the counts of right and wrong answers, by task and protocol. keys: keys of completed evaluations."""
        facts = [self.evaluated[key].event.facts for key in keys]
        return {found.task: found.results for found in facts}

    @property
    def machines(self) -> Machines:
        """The kinds of all machines that contributed to the group's results."""
        return joined(*self.contributors)

    def machines_of(self, run_id: str) -> Machines:
        """Returns the kinds of all machines that contributed to a run's results at its evaluation points so far."""
        events = [row.event for (other, _), row in self.points.items() if other == run_id]
        keys = {key for event in events for key in (*event.keys, *event.when_learned)}
        evaluated = (self.evaluated[key].event.facts.machines for key in keys)
        return joined(*evaluated, *(row.event.machines for row in self.commits if keys))

    @property
    def group(self) -> PlannedGroup:
        """The planned group. Raises CorruptError if no plan is recorded."""
        if self.plan is None:
            raise CorruptError("the ledger has no row with the plan of its training group")
        return self.plan.group

    @property
    def environment(self) -> LaunchEnvironment:
        """The machine and software of the group's last launch. Raises CorruptError if no plan is recorded."""
        if self.plan is None:
            raise CorruptError("the ledger has no row with the plan of its training group")
        return self.plan.environment

    @property
    def given_up(self) -> bool:
        """Whether a search or the user has stopped the group before all planned work was done."""
        return self.stopped is not None or self.status == "stopped"

    @property
    def ended(self) -> LaunchStatus:
        """How the group last ended, or `interrupted` if it has not ended."""
        return self.status if self.status in ("done", "stopped", "failed") else "interrupted"

    @property
    def hopeless(self) -> bool:
        """Whether the group cannot continue, because a job has failed or the training loss has diverged."""
        return bool(self.failed) or (self.stopped is not None and self.stopped.event.diverged is not None)

    @property
    def round(self) -> int:
        """The number of committed rounds, in scenario NNs."""
        return self.commits[-1].event.round if self.commits else 0

    def segments_not_trained(self) -> int:
        """Returns the number of segments that no mask was trained on, in scenario NNs."""
        return sum(row.event.mask is None for row in self.decisions)

    def num_masks(self) -> int | None:
        """Returns the number of masks in use in scenario NNs. Returns None in other scenarios."""
        if not self.decisions:
            return None
        return sum(
            (row.event.mask is not None) - (row.event.freed is not None)
            for row in self.decisions
            if row.event.outcome in ("allocate", "reclaim")
        )

    def done_shards(self) -> int:
        """Returns how many planned shards are trained. In NNs, `segments_per_task` decisions count as one shard."""
        if self.plan is None:
            return 0
        if self.group.segments_per_task is not None:
            return len(self.decisions) // self.group.segments_per_task
        return sum(shard.key in self.trained for shard in self.group.shards)

    def needed_evaluations(self) -> set[str]:
        """Returns the keys of the planned evaluations that are needed (see the function `needed_evaluations`)."""
        return needed_evaluations(self.group, self.points)

    def done_evaluations(self) -> int:
        """Returns how many planned evaluations are done, or are not needed any more (see `needed_evaluations`)."""
        if self.plan is None:
            return 0
        if self.group.is_nns:
            return len(self.evaluated)
        open_keys = self.needed_evaluations() - self.evaluated.keys()
        return sum(evaluation.key not in open_keys for evaluation in self.group.evaluations)

    def seconds_per_task(self) -> float | None:
        """Returns the wall time in seconds that an NNs run needs for the data of one task, on average.

        The average is over the last 20 commits of the current launch. Returns None if the current launch has fewer than
        two commits, and in other scenarios.
        """
        recent = self.commits[self.earlier_commits :][-20:]
        rounds = recent[-1].event.round - recent[0].event.round if recent else 0
        segments, streams = self.group.segments_per_task, self.group.num_streams
        if not rounds or segments is None or streams is None:
            return None
        seconds = (recent[-1].time_ms - recent[0].time_ms) / 1000
        return seconds * segments / (rounds * streams)

    def shard_seconds(self) -> list[float]:
        """Returns the training time of each shard in seconds. Leaves out shards whose artifact already existed.

        In scenario NNs, returns the training and decision time of every `segments_per_task` consecutive segments.
        """
        if self.plan is not None and self.group.segments_per_task is not None:
            count = self.group.segments_per_task
            spent = [row.event.seconds + row.event.latency for row in self.decisions]
            return [sum(spent[i : i + count]) for i in range(0, len(spent) - count + 1, count)]
        return [row.event.seconds for row in self.trained.values() if row.event.seconds]


def needed_evaluations(group: PlannedGroup, recorded: Container[tuple[str, int]]) -> set[str]:
    """Returns the keys of a group's evaluations on which an evaluation point depends, including done ones.

    recorded: the recorded points, as run id and number of tasks learned. Earlier versions recorded points without the
    evaluations directly after learning. Such a point does not need these evaluations.
    """
    needed: set[str] = set()
    for run in group.runs:
        for n, keys in run.points.items():
            needed.update(keys)
            if (run.run_id, n) not in recorded:
                needed.update(run.when_learned[: n - 1])
    return needed


def _without_old_forgetting(event: PointCompleted) -> PointCompleted:
    """Returns an evaluation point without the metrics of forgetting of earlier versions of this program.

    Those metrics depended on the evaluation points of the run (see PointCompleted), so they cannot be compared.
    """
    if event.when_learned:
        return event
    return replace(event, metrics={name: v for name, v in event.metrics.items() if not name.startswith("forgetting")})
