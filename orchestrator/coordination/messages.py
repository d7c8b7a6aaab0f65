"""The messages between a coordinator and its workers: jobs, and one reply to each job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeAlias

from orchestrator.base.plain_values import Node
from orchestrator.records.machine_kind import Provenance
from orchestrator.records.planned_group import Shard
from orchestrator.records.rows import ShardTrained, TaskEvaluated

if TYPE_CHECKING:  # only type annotations use numpy, so the process of a TaskCoordinator does not load it
    import numpy as np
    import numpy.typing as npt


JobKind: TypeAlias = Literal["train", "evaluate", "decide", "advance", "save", "rebuild"]


@dataclass(frozen=True)
class TrainJob:
    """Train one shard, or several shards together as a stack.

    `key`: for one shard, the shard's own key; for a stack, a hash of the shards' keys (shard_stacks.job_key).
    """

    kind: ClassVar[JobKind] = "train"

    key: str
    shards: tuple[Shard, ...]
    experiment: Node
    seed: int


@dataclass(frozen=True)
class EvaluateJob:
    """Evaluate one task with a learner that has learned `num_learned` tasks.

    `masks`: in scenario NNs, the keys of the learner's mask versions. In other scenarios, `masks` is None, and the
    learner consists of the group's first `num_learned` shards. `right`: the positions of the task's own masks in the
    learner.
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
    """The instructions to compute one version of a mask: start from `base`, and train on `segments` in order.

    `base`: the key of a stored version; None means the untrained mask. `segments`: (task, index) of each segment.
    `keys`: the key of the version after each segment. The last of `keys` is `key`. If `segments` is empty, `base` is
    `key`.
    """

    mask: int
    key: str
    base: str | None
    segments: tuple[tuple[int, int], ...]
    keys: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DecideJob:
    """Scenario NNs: compute the DecisionVector on the first images of a segment.

    `superposition`: the mean of all masks in the superposition, shape (n,) for n weights. `task`, `segment`: the
    segment's task, and the segment's index within the task.
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
    """The vector -d objective / dW * W at the superposition, shape (n,). `seconds`: the time that computing it took."""

    vector: npt.NDArray[np.float32]
    seconds: float


@dataclass(frozen=True)
class AdvancedMask:
    """The mask that an AdvanceJob has trained. `mask`: the bits, encoded by supsup_core.masks.codec. `loss`: the mean
    training loss over the last segment. `seconds`: the training time of the job."""

    mask: bytes
    loss: float
    seconds: float


@dataclass(frozen=True)
class SavedMasks:
    """The mask versions of a SaveJob are on disk. `num_bytes`: the bytes written. `seconds`: the time of the job."""

    num_bytes: int
    seconds: float


@dataclass(frozen=True)
class RebuiltMask:
    """A missing mask version was retrained and is on disk again. `version`: the key of the mask version."""

    version: str


Result: TypeAlias = ShardTrained | TaskEvaluated
"""The ledger event of a stored artifact: a trained task or an evaluation."""

Product: TypeAlias = tuple[Result, ...] | DecisionVector | AdvancedMask | SavedMasks | RebuiltMask


@dataclass(frozen=True)
class Done:
    """The job is done.

    `evicted`: in scenario NNs, the keys of the mask versions that the worker wrote to disk to free memory.
    `provenance`: in scenario NNs, the provenance of the product; None for a `Result`, whose facts contain the
    provenance.
    """

    key: str
    product: Product
    evicted: tuple[str, ...] = ()
    provenance: Provenance | None = None


@dataclass(frozen=True)
class Busy:
    """Another process has claimed a result of this job and is computing it."""

    key: str


@dataclass(frozen=True)
class Corrupt:
    """An artifact that the job needs is missing or corrupt. `artifact`: the artifact's key."""

    key: str
    artifact: str
    reason: str


@dataclass(frozen=True)
class Failed:
    """The job raised an exception. `error`: the exception's type and message. `diverged`: whether the training loss
    became NaN or infinite. `out_of_memory`: whether the job did not fit into the memory of the CPU or GPU."""

    key: str
    kind: JobKind
    error: str
    traceback: str
    diverged: bool = False
    out_of_memory: bool = False


@dataclass(frozen=True)
class Lost:
    """The worker died during the job. `node_lost`: whether the worker's whole node died. `out_of_memory`: whether Ray
    killed the worker to free memory."""

    key: str
    kind: JobKind
    reason: str
    node_lost: bool = False
    out_of_memory: bool = False


Reply: TypeAlias = Done | Busy | Corrupt | Failed | Lost
