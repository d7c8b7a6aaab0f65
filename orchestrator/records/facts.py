"""What an artifact says of itself beside its tensors: one dataclass for each kind of artifact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from orchestrator.base.plain_values import Node, from_node, to_node
from supsup_core.errors import CorruptError
from supsup_core.evaluation.counts import ProtocolCounts


@dataclass(frozen=True)
class TrainedFacts:
    """Of a trained task. `accuracy`: its share of right answers on its own test images, or None where a learner of this
    task alone has none. `curve`: the batches done and the mean losses of its loss curve. `num_bytes`: of what is stored
    of it; `shared_bytes`: of what the next task's takes the place of."""

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


@dataclass(frozen=True)
class EvaluatedFacts:
    """Of an evaluated task. `results`: counts by protocol (`paper`, `strict`). `state_bytes`: of all that was stored of
    the masks it was evaluated with."""

    kind: ClassVar[str] = "evaluated"

    task: int
    state_bytes: int
    results: dict[str, ProtocolCounts]


@dataclass(frozen=True)
class UnfinishedFacts:
    """Of a checkpoint of a task that is being trained: batches done, and the seconds they took."""

    kind: ClassVar[str] = "unfinished"

    batches: int
    seconds: float


@dataclass(frozen=True)
class MaskVersionFacts:
    """Of a version of a mask in NNs: the mean loss of the segment it was trained on last."""

    kind: ClassVar[str] = "version"

    loss: float


Facts: TypeAlias = TrainedFacts | EvaluatedFacts | UnfinishedFacts | MaskVersionFacts

_KINDS: dict[str, type[Facts]] = {
    kind.kind: kind for kind in (TrainedFacts, EvaluatedFacts, UnfinishedFacts, MaskVersionFacts)
}


def facts_to_node(facts: Facts) -> Node:
    """Facts as plain JSON values, their kind among them."""
    node = to_node(facts)
    if isinstance(facts, EvaluatedFacts):
        node["results"] = {protocol: counts.to_node() for protocol, counts in facts.results.items()}
    return {"kind": facts.kind, **node}


def facts_from_node(node: object) -> Facts:
    """Facts from plain JSON values. CorruptError when they are of no known kind, or not what their kind holds."""
    kind = _KINDS.get(str(node.get("kind"))) if isinstance(node, dict) else None
    if kind is None:
        raise CorruptError("its facts are of no kind that this version knows")
    try:
        return from_node(node, kind)
    except ValueError as error:
        raise CorruptError(f"its facts are not those of a {kind.kind} artifact ({error})") from error
