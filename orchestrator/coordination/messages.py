"""What a coordinator and its workers tell each other: jobs, and one reply to each job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeAlias

from orchestrator.base.plain_values import Node
from orchestrator.records.planned_group import Shard
from orchestrator.records.rows import ShardTrained, TaskEvaluated

if TYPE_CHECKING:  # numpy only for a name: the coordinator of given tasks does without it
    import numpy as np
    import numpy.typing as npt


JobKind: TypeAlias = Literal["train", "evaluate", "decide", "advance", "save", "rebuild"]


@dataclass(frozen=True)
class TrainJob:
    """Train some shards, several of them together as one stack. `key`: the shard's own where it is one alone."""

    kind: ClassVar[JobKind] = "train"

    key: str
    shards: tuple[Shard, ...]
    experiment: Node
    seed: int


@dataclass(frozen=True)
class EvaluateJob:
    """Evaluate one task after `num_learned` tasks.

    `right`: the numbers of the masks that belong to the task. `masks`: in NNs, the keys of the mask versions that
    answer; elsewhere None, for the first `num_learned` shards of the group.
    """

    kind: ClassVar[JobKind] = "evaluate"

    key: str
    task: int
    num_learned: int
    right: tuple[int, ...]
    experiment: Node
    inference_id: str
    seed: int
    masks: tuple[str, ...] | None = None


@dataclass(frozen=True)
class MaskVersion:
    """How to make one version of a mask.

    `base`: the key of an earlier version that is stored; None for a fresh mask. `segments`: (task, index) of each
    segment to train on since the base, and `keys` the version after each of them, the last of which is `key`.
    """

    mask: int
    key: str
    base: str | None
    segments: tuple[tuple[int, int], ...]
    keys: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DecideJob:
    """NNs: compute what a decision needs of a segment's first images, at a superposition of all masks (n,)."""

    kind: ClassVar[JobKind] = "decide"

    key: str
    superposition: npt.NDArray[np.float32]
    task: int
    segment: int


@dataclass(frozen=True)
class AdvanceJob:
    """NNs: train a mask up to a version."""

    kind: ClassVar[JobKind] = "advance"

    key: str
    version: MaskVersion


@dataclass(frozen=True)
class SaveJob:
    """NNs: write versions of masks to disk."""

    kind: ClassVar[JobKind] = "save"

    key: str
    versions: tuple[MaskVersion, ...]


@dataclass(frozen=True)
class RebuildJob:
    """NNs: make a version again that is missing on disk, and write it."""

    kind: ClassVar[JobKind] = "rebuild"

    key: str
    version: MaskVersion


Job: TypeAlias = TrainJob | EvaluateJob | DecideJob | AdvanceJob | SaveJob | RebuildJob


class Assignment(NamedTuple):
    """A job, and the number of the worker that is to do it."""

    worker: int
    job: Job


@dataclass(frozen=True, eq=False)
class DecisionVector:
    """-d objective / dW * W at the superposition (n,), and the seconds it took."""

    vector: npt.NDArray[np.float32]
    seconds: float


@dataclass(frozen=True)
class AdvancedMask:
    """A trained mask as a blob (supsup_core.masks.codec), the mean loss of its last segment, seconds of training."""

    mask: bytes
    loss: float
    seconds: float


@dataclass(frozen=True)
class SavedMasks:
    """Bytes that were written, and the seconds it took."""

    num_bytes: int
    seconds: float


@dataclass(frozen=True)
class RebuiltMask:
    """The key of a mask version that was made again and is on disk."""

    version: str


Result: TypeAlias = ShardTrained | TaskEvaluated
"""A stored result, as the ledger records it."""

Product: TypeAlias = tuple[Result, ...] | DecisionVector | AdvancedMask | SavedMasks | RebuiltMask


@dataclass(frozen=True)
class Done:
    """The job is done. `evicted`: NNs, the keys of mask versions that the worker wrote only to free memory."""

    key: str
    product: Product
    evicted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Busy:
    """Another process has claimed the same result and is making it."""

    key: str


@dataclass(frozen=True)
class Corrupt:
    """An artifact that the job needs, with the key `artifact`, is missing or corrupt."""

    key: str
    artifact: str
    reason: str


@dataclass(frozen=True)
class Failed:
    """The job, of this kind, raised an exception. `diverged`: the training loss became NaN or infinite."""

    key: str
    kind: JobKind
    error: str
    traceback: str
    diverged: bool = False
    out_of_memory: bool = False


@dataclass(frozen=True)
class Lost:
    """The worker died at a job of this kind. `node_lost`: with its whole node. `out_of_memory`: Ray killed it to free
    memory."""

    key: str
    kind: JobKind
    reason: str
    node_lost: bool = False
    out_of_memory: bool = False


Reply: TypeAlias = Done | Busy | Corrupt | Failed | Lost
