"""The rows of a ledger: one frozen dataclass for each kind of event, read and written as JSON.

`Row` is an event with its number and time. A field that a later version adds has a default, so that older ledgers are
read; keys that this version does not know are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Generic, Literal, TypeAlias, TypeVar, get_args

import msgspec

from orchestrator.base.plain_values import Node, from_json, to_node
from orchestrator.records.facts import EvaluatedFacts, TrainedFacts
from orchestrator.records.planned_group import PlannedGroup
from supsup_core.errors import CorruptError

GroupEnd: TypeAlias = Literal["done", "stopped", "failed"]
"""How a training group can come to an end of its own."""


@dataclass(frozen=True)
class LaunchEnvironment:
    """The machine and the program of a launch. `num_workers`: that the group may use at once. `versions`: of packages,
    by name. `git_revision`: "" outside a repository."""

    num_workers: int
    versions: dict[str, str]
    python: str
    platform: str
    processor: str
    num_cpus: int
    git_revision: str = ""


@dataclass(frozen=True)
class GroupPlanned:
    """A launch begins: the group as planned, and where it runs."""

    kind: ClassVar[str] = "plan"

    group: PlannedGroup
    environment: LaunchEnvironment


@dataclass(frozen=True)
class ShardTrained:
    """A task has been trained and its artifact is stored.

    `worker`, `started_ms` (Unix time), `seconds` of work and `resumed_at` (batches that an earlier worker had done):
    None when the artifact was found in the store.
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
    """A task has been evaluated and the result is stored. Fields as in `ShardTrained`."""

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
    """All evaluations of one evaluation point of a run are done. `keys`: of those evaluations."""

    kind: ClassVar[str] = "point"

    run_id: str
    num_learned: int
    metrics: dict[str, float]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class SegmentDecided:
    """NNs: a decision about one segment, and the training that followed.

    `round`, `ordinal`: the number of the round, and of the segment in the run. `num_masks` to `freed` and
    `standing_out`: the decision (supsup_core.nns.allocator.Decision). `key`: of the mask's version after the segment.
    `loss`: mean training loss; None where no mask was trained. `seconds`: of training; `latency`: of deciding. The
    row's attachment holds the slopes that were judged (float32).
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
    """NNs: the allocation metrics after so many tasks' worth of data. `latency`: mean seconds of the last task's
    decisions; `seconds`: of its training."""

    kind: ClassVar[str] = "met"

    num_learned: int
    metrics: dict[str, float]
    latency: float
    seconds: float


@dataclass(frozen=True)
class EvaluationDue:
    """NNs: the masks that an evaluation point is to evaluate, on the tasks met so far.

    `numbers`, `keys`: of each live mask and its version, ascending. `right`: for each of `tasks`, the places of its own
    masks among them.
    """

    kind: ClassVar[str] = "due"

    num_learned: int
    tasks: tuple[int, ...]
    numbers: tuple[int, ...]
    keys: tuple[str, ...]
    right: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class RunForked:
    """NNs: the rows up to the first commit are those of another sweep's group, after `at_task` tasks."""

    kind: ClassVar[str] = "forked"

    sweep: str
    group_id: str
    at_task: int


@dataclass(frozen=True)
class RoundsCommitted:
    """NNs: all rounds before `round` are safe on disk. `versions`: the keys of the mask versions written, by mask.
    `num_bytes` written, `training_seconds` since the commit before, and `seconds` that committing took."""

    kind: ClassVar[str] = "committed"

    round: int
    versions: dict[int, str]
    num_bytes: int
    training_seconds: float
    seconds: float


@dataclass(frozen=True)
class ArtifactLost:
    """An artifact, or with an empty key the ledger itself, is missing or corrupt. Its task is done again."""

    kind: ClassVar[str] = "lost"

    key: str
    file: str
    reason: str
    task: int | None = None


@dataclass(frozen=True)
class JobRetried:
    """A worker died at a job. `free`: its whole node died, which does not count against the job."""

    kind: ClassVar[str] = "retried"

    key: str
    reason: str
    free: bool = False


@dataclass(frozen=True)
class JobSplit:
    """The tasks of a job did not fit into memory together; from then on its halves are jobs."""

    kind: ClassVar[str] = "split"

    key: str
    reason: str


@dataclass(frozen=True)
class JobStalled:
    """A job takes far longer than others of its kind did. `what`: the job in words."""

    kind: ClassVar[str] = "stalled"

    key: str
    what: str
    worker: int
    seconds: float
    usual_seconds: float | None


@dataclass(frozen=True)
class JobFailed:
    """A job failed for good. `what`: the job in words."""

    kind: ClassVar[str] = "failed"

    key: str
    what: str
    error: str
    traceback: str


@dataclass(frozen=True)
class TaskCancelled:
    """The user has cancelled a task; what builds on it is not done either."""

    kind: ClassVar[str] = "cancelled"

    key: str
    task: int


@dataclass(frozen=True)
class GroupStopped:
    """A search has stopped its trial, or the user has cancelled the group, after the last evaluation point.

    `diverged`: the error, where the loss of a trial became NaN. `reason`: "cancelled" where the user did it.
    """

    kind: ClassVar[str] = "stopped"

    num_learned: int
    diverged: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class RetryRequested:
    """The user retries what had failed or was stopped; of cancelled tasks these, or all where none is named."""

    kind: ClassVar[str] = "retry"

    tasks: tuple[int, ...] = ()


@dataclass(frozen=True)
class LaunchEnded:
    """A launch came to an end of its own. Without such a row, it was interrupted."""

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
    """One committed event. `seq` counts from 1 without gaps; `time_ms` is Unix time, never decreasing."""

    seq: int
    time_ms: int
    event: EventT_co


AnyRow: TypeAlias = Row[Event]


@cache
def _decoder(kind: str) -> msgspec.json.Decoder[Event] | None:
    """The decoder of a kind of rows, made once; None for an unknown kind."""
    event = _KINDS.get(kind)
    return None if event is None else msgspec.json.Decoder(event)


def event_from_json(kind: str, payload: bytes) -> Event:
    """The event of a row. CorruptError when its kind is unknown, or its payload is not what that kind holds."""
    decoder = _decoder(kind)
    if decoder is None:
        raise CorruptError(f"not a row {kind!r} of this version")
    try:
        return decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise CorruptError(f"not a row {kind!r} of this version ({error})") from error
    except msgspec.DecodeError:
        return _event_with_nan(kind, payload)


def _event_with_nan(kind: str, payload: bytes) -> Event:
    """As `event_from_json`, by a slower decoder that knows NaN."""
    try:
        return from_json(payload, _KINDS[kind])
    except ValueError as error:
        raise CorruptError(f"not a row {kind!r} of this version ({error})") from error


def event_to_node(event: Event) -> Node:
    """An event's payload as plain JSON values."""
    return to_node(event)
