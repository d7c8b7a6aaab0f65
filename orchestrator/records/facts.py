"""Defines facts: the metadata that an artifact stores with its tensors. Each kind of artifact has its own dataclass.

All facts have the field `machines`: the kinds of the machines that computed the artifact, or another artifact from
which it was computed. `weights_sha256`: the SHA-256 of the frozen weights W; "" if the hash was not recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from orchestrator.base.plain_values import Node, from_node, to_node
from orchestrator.records.machine_kind import UNKNOWN, MachineKind, Machines, Provenance
from supsup_core.errors import CorruptError
from supsup_core.evaluation.counts import ProtocolCounts


@dataclass(frozen=True)
class TrainedFacts:
    """Facts of a trained task.

    `accuracy`: accuracy on the task's own test images, in [0, 1]; None if the method's tasks depend on each other.
    `curve`: `batches` and `losses` of the LossCurve. `num_images`: the number of images in all training batches.
    `num_bytes`: size of the tensors that only this task uses. `shared_bytes`: size of the shared tensors, which the
    next task replaces. `tasks_at_once`: the number of tasks that were trained together in one job.
    """

    kind: ClassVar[str] = "trained"

    task: int
    accuracy: float | None
    curve: tuple[tuple[int, ...], tuple[float, ...]]
    num_images: int
    num_bytes: int
    weights_sha256: str
    device: str
    threads: int
    torch: str
    python: str
    shared_bytes: int = 0
    tf32: bool = False
    tasks_at_once: int = 1
    machines: Machines = UNKNOWN


@dataclass(frozen=True)
class EvaluatedFacts:
    """Facts of an evaluated task. `results`: counts of right and wrong answers by protocol (`paper`, `strict`).
    `state_bytes`: total size of the stored tensors from which the evaluated learner was built."""

    kind: ClassVar[str] = "evaluated"

    task: int
    state_bytes: int
    results: dict[str, ProtocolCounts]
    machines: Machines = UNKNOWN


@dataclass(frozen=True)
class UnfinishedFacts:
    """Facts of a checkpoint. `batches`: the number of batches trained so far. `seconds`: the time of this training."""

    kind: ClassVar[str] = "unfinished"

    batches: int
    seconds: float
    machines: Machines = UNKNOWN
    weights_sha256: str = ""


@dataclass(frozen=True)
class MaskVersionFacts:
    """Facts of a mask version in scenario NNs. `loss`: the mean training loss on the version's last segment."""

    kind: ClassVar[str] = "version"

    loss: float
    machines: Machines = UNKNOWN
    weights_sha256: str = ""


Facts: TypeAlias = TrainedFacts | EvaluatedFacts | UnfinishedFacts | MaskVersionFacts

_KINDS: dict[str, type[Facts]] = {
    kind.kind: kind for kind in (TrainedFacts, EvaluatedFacts, UnfinishedFacts, MaskVersionFacts)
}


def facts_to_node(facts: Facts) -> Node:
    """Converts facts to plain JSON values, including the key `kind`."""
    node = to_node(facts)
    if isinstance(facts, EvaluatedFacts):
        node["results"] = {protocol: counts.to_node() for protocol, counts in facts.results.items()}
    return {"kind": facts.kind, **node}


def facts_from_node(node: object) -> Facts:
    """Builds facts from plain JSON values. Raises CorruptError if the kind is unknown or does not fit the values."""
    kind = _KINDS.get(str(node.get("kind"))) if isinstance(node, dict) else None
    if kind is None:
        raise CorruptError("the artifact's facts have a kind that this version of supsup does not know")
    try:
        return from_node(node, kind)
    except ValueError as error:
        raise CorruptError(f"the artifact's facts do not fit their kind, {kind.kind} ({error})") from error


def provenance_of(facts: Facts) -> Provenance:
    """Returns the provenance of an artifact. The provenance of an evaluation has no hash of frozen weights."""
    if isinstance(facts, EvaluatedFacts):
        return Provenance(facts.machines)
    if isinstance(facts, TrainedFacts) and facts.machines == UNKNOWN:
        return Provenance(Machines([MachineKind(torch=facts.torch, python=facts.python)]), facts.weights_sha256)
    return Provenance(facts.machines, facts.weights_sha256)
