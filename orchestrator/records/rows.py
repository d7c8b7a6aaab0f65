"""Defines the rows of a ledger. Each kind of event is a frozen dataclass, stored as JSON.

`Row` is an event with its number and time. Fields added in later versions have defaults, so that older ledgers can be
read. Unknown keys are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeAlias, TypeVar, get_args

from orchestrator.base.plain_values import Node, from_json, to_node
from orchestrator.records.facts import EvaluatedFacts, TrainedFacts
from orchestrator.records.machine_kind import UNKNOWN, Machines
from orchestrator.records.planned_group import PlannedGroup
from supsup_core.errors import CorruptError

GroupEnd: TypeAlias = Literal["done", "stopped", "failed"]
"""How a training group ended, if it was not interrupted."""


@dataclass(frozen=True)
class LaunchEnvironment:
    """The machine and software that run a sweep. `num_workers`: the most workers that the group may use at once.
    `versions`: maps package names to versions. `git_revision`: "" if the sweep file is in no Git repository."""

    num_workers: int
    versions: dict[str, str]
    python: str
    platform: str
    processor: str
    num_cpus: int
    git_revision: str = ""


@dataclass(frozen=True)
class GroupPlanned:
    """The training group is started or resumed. The row holds the group's plan, machine and software."""

    kind: ClassVar[str] = "plan"

    group: PlannedGroup
    environment: LaunchEnvironment


@dataclass(frozen=True)
class ShardTrained:
    """A task has been trained and its artifact is stored.

    `started_ms`: the Unix time in ms at which the job started. `seconds`: the job's time, divided by its number of
    tasks. `resumed_at`: the number of batches that were restored from a checkpoint. `started_ms`, `seconds`,
    `resumed_at` and `worker` are None if the artifact already existed in the store.
    """

    kind: ClassVar[str] = "trained"

    key: str
    facts: TrainedFacts
    sha256: str
    worker: int | None = None
    started_ms: int | None = None
    seconds: float | None = None
    resumed_at: int | None = None


@dataclass(frozen=True)
class TaskEvaluated:
    """A task has been evaluated and its artifact is stored. The fields have the same meaning as in `ShardTrained`."""

    kind: ClassVar[str] = "evaluated"

    key: str
    facts: EvaluatedFacts
    sha256: str
    worker: int | None = None
    started_ms: int | None = None
    seconds: float | None = None
    resumed_at: int | None = None


@dataclass(frozen=True)
class PointCompleted:
    """All evaluations of one evaluation point of a run are done. `keys`: the keys of these evaluations.

    `when_learned`: the keys of the evaluations of the earlier tasks directly after each was learned. Without these
    evaluations, earlier versions of this program measured the metric `forgetting` from earlier evaluation points.
    """

    kind: ClassVar[str] = "point"

    run_id: str
    num_learned: int
    metrics: dict[str, float]
    keys: tuple[str, ...]
    when_learned: tuple[str, ...] = ()


@dataclass(frozen=True)
class SegmentDecided:
    """Scenario NNs: a decision about one segment, and the training that followed.

    `ordinal`: number of the segment in the run. `segment`: number of the segment in its task. `num_masks` to `margin`:
    as in supsup_core.nns.allocator.Decision. `key`: key of the mask version after the segment. `loss`: mean training
    loss on the segment. `key`, `loss`: None if no mask was trained. `seconds`: training time. `latency`: seconds that
    the round's decisions took. The row's attachment holds the slopes (float32) on which the decision is based.
    """

    kind: ClassVar[str] = "decision"

    round: int
    ordinal: int
    stream: int
    task: int
    segment: int
    num_masks: int
    statistic: float
    threshold: float
    best: int | None
    second: int | None
    outcome: Literal["train", "allocate", "reclaim", "reuse", "skip"]
    mask: int | None
    freed: int | None
    standing_out: tuple[int, ...]
    margin: float
    key: str | None
    loss: float | None
    seconds: float
    latency: float


@dataclass(frozen=True)
class TasksMet:
    """Scenario NNs: the allocation metrics after the data of `num_learned` tasks. `latency`: mean time of a decision,
    and `seconds`: total training time, both over the last `segments_per_task` segments."""

    kind: ClassVar[str] = "met"

    num_learned: int
    metrics: dict[str, float]
    latency: float
    seconds: float


@dataclass(frozen=True)
class EvaluationDue:
    """Scenario NNs: the masks that an evaluation point must evaluate on `tasks`, the tasks seen so far.

    `numbers`: the numbers of the masks in use, ascending. `keys`: for each mask, the key of its version. `right`: for
    each task, the positions in `numbers` of the masks that were allocated for the task.
    """

    kind: ClassVar[str] = "due"

    num_learned: int
    tasks: tuple[int, ...]
    numbers: tuple[int, ...]
    keys: tuple[str, ...]
    right: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class RunForked:
    """Scenario NNs: this run is a fork of another run after `at_task` tasks. Rows up to the first commit are copied."""

    kind: ClassVar[str] = "forked"

    sweep: str
    group_id: str
    at_task: int


@dataclass(frozen=True)
class RoundsCommitted:
    """Scenario NNs: all rounds before number `round` are on disk. `versions`: maps changed masks to their version keys.
    `num_bytes`: bytes written. `training_seconds`: training time since the previous commit. `seconds`: commit time.
    `machines`: the kinds of the machines that decided or trained since the previous commit."""

    kind: ClassVar[str] = "committed"

    round: int
    versions: dict[int, str]
    num_bytes: int
    training_seconds: float
    seconds: float
    machines: Machines = UNKNOWN


@dataclass(frozen=True)
class ArtifactLost:
    """An artifact is missing or corrupt, so it is computed again. An empty `key` stands for the ledger itself."""

    kind: ClassVar[str] = "lost"

    key: str
    file: str
    reason: str
    task: int | None = None


@dataclass(frozen=True)
class JobRetried:
    """A worker died during a job. The job is retried, unless a JobFailed row follows. `free`: whether the worker's
    whole node died. Such a retry does not count towards MAX_RETRIES."""

    kind: ClassVar[str] = "retried"

    key: str
    reason: str
    free: bool = False


@dataclass(frozen=True)
class JobSplit:
    """The tasks of a job did not fit into memory together. From now on, each half of the tasks is a separate job."""

    kind: ClassVar[str] = "split"

    key: str
    reason: str


@dataclass(frozen=True)
class JobStalled:
    """A running job takes far longer than earlier jobs of the same kind. `what`: the job in words."""

    kind: ClassVar[str] = "stalled"

    key: str
    what: str
    worker: int
    seconds: float
    usual_seconds: float | None


@dataclass(frozen=True)
class JobFailed:
    """A job failed and is not retried. `what`: the job in words."""

    kind: ClassVar[str] = "failed"

    key: str
    what: str
    error: str
    traceback: str


@dataclass(frozen=True)
class TaskCancelled:
    """The user has cancelled a task. Tasks that build on this task are not trained either."""

    kind: ClassVar[str] = "cancelled"

    key: str
    task: int


@dataclass(frozen=True)
class GroupStopped:
    """A search has stopped this trial, or the user has cancelled the group. `num_learned`: the last completed
    evaluation point. `diverged`: the error, if the loss became NaN or infinite. `reason`: "cancelled", or None."""

    kind: ClassVar[str] = "stopped"

    num_learned: int
    diverged: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class RetryRequested:
    """The user retries failed jobs or a stopped group. `tasks`: the cancelled tasks to retry; () means all cancelled
    tasks."""

    kind: ClassVar[str] = "retry"

    tasks: tuple[int, ...] = ()


@dataclass(frozen=True)
class LaunchEnded:
    """A launch has ended its work on the group. An interrupted launch writes no such row."""

    kind: ClassVar[str] = "ended"

    status: GroupEnd


Event: TypeAlias = (
    GroupPlanned
    | ShardTrained
    | TaskEvaluated
    | PointCompleted
    | SegmentDecided
    | TasksMet
    | EvaluationDue
    | RunForked
    | RoundsCommitted
    | ArtifactLost
    | JobRetried
    | JobSplit
    | JobStalled
    | JobFailed
    | TaskCancelled
    | GroupStopped
    | RetryRequested
    | LaunchEnded
)

_KINDS: dict[str, type[Event]] = {kind.kind: kind for kind in get_args(Event)}

EventT_co = TypeVar("EventT_co", covariant=True, bound=Event)


@dataclass(frozen=True, slots=True)
class Row(Generic[EventT_co]):
    """One committed event. `seq`: counts from 1 without gaps. `time_ms`: Unix time in ms, never decreasing."""

    seq: int
    time_ms: int
    event: EventT_co


AnyRow: TypeAlias = Row[Event]


def event_from_json(kind: str, payload: bytes) -> Event:
    """Decodes the event of a row. Raises CorruptError if the kind is unknown or the payload does not fit the kind."""
    if kind not in _KINDS:
        raise CorruptError(f"this version of supsup knows no row of kind {kind!r}")
    try:
        return from_json(payload, _KINDS[kind])
    except ValueError as error:
        raise CorruptError(f"not a valid row of kind {kind!r} ({error})") from error


def event_to_node(event: Event) -> Node:
    """Returns an event's payload as plain JSON values."""
    return to_node(event)
