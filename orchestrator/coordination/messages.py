"""The messages between a coordinator and its workers: jobs, and one reply to each job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeAlias

from orchestrator.base.plain_values import Node
from orchestrator.records.planned_group import Shard
from orchestrator.records.rows import ShardTrained, TaskEvaluated

if TYPE_CHECKING:  # numpy is needed for type names only, and TaskCoordinator does not load it
    import numpy as np
    import numpy.typing as npt


JobKind: TypeAlias = Literal["train", "evaluate", "decide", "advance", "save", "rebuild"]


@dataclass(frozen=True)
class TrainJob:
    """Train one or more shards. Several shards are trained together, with their tensors stacked.

    `key`: the shard's own key if there is only one shard (see shard_batches.job_key).
    """

    kind: ClassVar[JobKind] = "train"

    key: str
    shards: tuple[Shard, ...]
    experiment: Node
    seed: int


@dataclass(frozen=True)
class EvaluateJob:
    """Evaluate one task after `num_learned` tasks.

    `right`: the numbers of the masks that belong to the task. `masks`: in scenario NNs, the keys of the mask versions
    to evaluate. In other scenarios None, which means the first `num_learned` shards of the group.
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
    """The instructions to compute one version of a mask.

    `base`: the key of an earlier stored version; None for a new mask. `segments`: (task, index) of each segment to
    train on after the base. `keys`: the key of the version after each segment; the last one equals `key`.
    """

    mask: int
    key: str
    base: str | None
    segments: tuple[tuple[int, int], ...]
    keys: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DecideJob:
    """Scenario NNs: compute the DecisionVector of a segment's first images.

    `superposition`: the superposition of all masks, shape (n,) for n weights.
    """

    kind: ClassVar[JobKind] = "decide"

    key: str
    superposition: npt.NDArray[np.float32]
    task: int
    segment: int


@dataclass(frozen=True)
class AdvanceJob:
    """Scenario NNs: train one mask until it reaches the given mask version."""

    kind: ClassVar[JobKind] = "advance"

    key: str
    version: MaskVersion


@dataclass(frozen=True)
class SaveJob:
    """Scenario NNs: write these mask versions to disk."""

    kind: ClassVar[JobKind] = "save"

    key: str
    versions: tuple[MaskVersion, ...]


@dataclass(frozen=True)
class RebuildJob:
    """Scenario NNs: retrain a mask version that is missing on disk, and write it to disk."""

    kind: ClassVar[JobKind] = "rebuild"

    key: str
    version: MaskVersion


Job: TypeAlias = TrainJob | EvaluateJob | DecideJob | AdvanceJob | SaveJob | RebuildJob


class Assignment(NamedTuple):
    """A job, and the number of the worker that must do it."""

    worker: int
    job: Job


@dataclass(frozen=True, eq=False)
class DecisionVector:
    """The product -d objective / dW * W at the superposition, shape (n,). `seconds`: time to compute it."""

    vector: npt.NDArray[np.float32]
    seconds: float


@dataclass(frozen=True)
class AdvancedMask:
    """A trained mask. `mask`: encoded by supsup_core.masks.codec. `loss`: mean over the last segment. `seconds`: of
    training."""

    mask: bytes
    loss: float
    seconds: float


@dataclass(frozen=True)
class SavedMasks:
    """The size of the mask versions written to disk, and the seconds that writing took."""

    num_bytes: int
    seconds: float


@dataclass(frozen=True)
class RebuiltMask:
    """The key of a mask version that was retrained and is on disk again."""

    version: str


Result: TypeAlias = ShardTrained | TaskEvaluated
"""A stored result, in the form that the ledger records."""

Product: TypeAlias = tuple[Result, ...] | DecisionVector | AdvancedMask | SavedMasks | RebuiltMask


@dataclass(frozen=True)
class Done:
    """The job is done. `evicted`: in scenario NNs, keys of the mask versions that the worker wrote to free memory."""

    key: str
    product: Product
    evicted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Busy:
    """Another process has claimed the same result and is computing it."""

    key: str


@dataclass(frozen=True)
class Corrupt:
    """An artifact that the job needs is missing or corrupt. `artifact`: its key."""

    key: str
    artifact: str
    reason: str


@dataclass(frozen=True)
class Failed:
    """The job raised an exception. `kind`: the job's kind. `diverged`: the training loss became NaN or infinite."""

    key: str
    kind: JobKind
    error: str
    traceback: str
    diverged: bool = False
    out_of_memory: bool = False


@dataclass(frozen=True)
class Lost:
    """The worker died during the job. `kind`: the job's kind. `node_lost`: the worker's whole node died.
    `out_of_memory`: Ray killed the worker to free memory."""

    key: str
    kind: JobKind
    reason: str
    node_lost: bool = False
    out_of_memory: bool = False


Reply: TypeAlias = Done | Busy | Corrupt | Failed | Lost
