"""One round of NNs: a decision for one segment of every stream, in order, then the training of the chosen masks.

Which worker does what, and when, changes nothing: no decision is taken before every stream's vector is there,
and none sees what another one of its round has trained.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from orchestrator.coordination.messages import Job, Outcome
from orchestrator.nns.mask_versions import Lineages
from orchestrator.records.ledger import Entry
from supsup_core.masks import codec
from supsup_core.nns.allocation_tests import Slopes
from supsup_core.nns.allocator import Allocator, Decision
from supsup_core.nns.streams import Segment


@dataclass
class Step:
    """One segment of the round: its decision, and what became of it. `key`: of the mask's version after it."""

    stream: int
    segment: Segment
    decision: Decision
    slopes: Slopes
    key: str | None
    length: int = 0
    loss: float | None = None
    seconds: float = 0.0
    done: bool = False


class Round:
    """The work of one round, from its segments to trained masks."""

    def __init__(
        self, number: int, segments: Sequence[tuple[int, Segment]], allocator: Allocator, lineages: Lineages
    ) -> None:
        """segments: of each stream that has one left, with the stream's number. Decides at once when no mask can be
        chosen yet. Deciding extends the lineages of the chosen masks."""
        self.number = number
        self.started = time.monotonic()
        self.steps: list[Step] = []
        """What was decided, in order of streams; empty until every stream's vector is there."""
        self._segments = segments
        self._allocator = allocator
        self._lineages = lineages
        self._vectors: dict[int, torch.Tensor] = {}
        self._vector_seconds: list[float] = []
        started = time.perf_counter()
        self._superposition = allocator.superposition()
        self.latency = time.perf_counter() - started
        """Seconds that deciding took: the mean mask, the slowest vector, and the product with all masks."""
        if self._superposition is None:
            self._decide()

    @property
    def over(self) -> bool:
        """Whether all is decided and trained."""
        return bool(self.steps) and all(step.done for step in self.steps)

    def _decide(self) -> None:
        started = time.perf_counter()
        if self._superposition is None:
            slopes: Slopes = np.zeros((len(self._segments), 0))
        else:
            vectors = torch.stack([self._vectors[stream] for stream, _ in self._segments])
            slopes = self._allocator.slopes(vectors)
        decisions = self._allocator.decide(slopes)
        self.latency += max(self._vector_seconds, default=0.0) + time.perf_counter() - started
        for (stream, segment), decision, row in zip(self._segments, decisions, slopes, strict=True):
            step = Step(stream, segment, decision, row, None)
            if decision.mask is None:
                step.done = True
            else:
                step.key = self._lineages.extend(decision.mask, segment)
                step.length = len(self._lineages[decision.mask].segments)
            self.steps.append(step)

    def jobs(self, stored: Collection[str]) -> Iterator[tuple[Job, int, int | None]]:
        """What it waits for, each with its stream and the mask it trains (None: it only decides).

        stored: the keys of the masks' versions that are on disk.
        """
        if not self.steps:
            assert self._superposition is not None
            for stream, segment in self._segments:
                if stream not in self._vectors:
                    job = {
                        "kind": "decide", "key": self._vector_key(stream),
                        "superposition": self._superposition.numpy(),
                        "task": segment.task, "segment": segment.index,
                    }  # fmt: skip
                    yield job, stream, None
            return
        waiting: set[int] = set()
        for step in self.steps:
            mask = step.decision.mask
            if step.done or mask is None or mask in waiting:
                continue  # two streams on one mask run one after the other
            waiting.add(mask)
            version = self._lineages[mask].version(stored, step.length)
            yield {"kind": "advance", "key": step.key, "version": version}, step.stream, mask

    def _vector_key(self, stream: int) -> str:
        return f"decide-{self.number}-{stream}"

    def take_vector(self, outcome: Outcome) -> None:
        """Take a stream's vector; with the last one, decide. One not waited for changes nothing."""
        if self.steps:
            return
        for stream, _ in self._segments:
            if outcome["key"] == self._vector_key(stream) and stream not in self._vectors:
                self._vectors[stream] = torch.from_numpy(np.array(outcome["vector"]))
                self._vector_seconds.append(outcome["seconds"])
        if len(self._vectors) == len(self._segments):
            self._decide()

    def take_mask(self, outcome: Outcome) -> int | None:
        """Take a trained mask; its number, or None when it was not waited for."""
        for index, step in enumerate(self.steps):
            mask = step.decision.mask
            if step.key == outcome["key"] and not step.done and mask is not None:
                if not any(other.done and other.decision.mask == mask for other in self.steps[index + 1 :]):
                    self._allocator.trained(mask, codec.decode(outcome["mask"])[0])  # else a later one is there already
                step.loss, step.seconds, step.done = outcome["loss"], outcome["seconds"], True
                return mask
        return None

    def entries(self, first: int) -> Iterator[Entry]:
        """The ledger's row of each decision; `first`: the ordinal of the round's first segment in the run."""
        for ordinal, step in enumerate(self.steps, start=first):
            payload = {
                "round": self.number, "ordinal": ordinal, "stream": step.stream,
                "task": step.segment.task, "segment": step.segment.index, **asdict(step.decision),
                "standing_out": list(step.decision.standing_out), "margin": step.decision.margin,
                "key": step.key, "loss": step.loss, "seconds": step.seconds, "latency": self.latency,
            }  # fmt: skip
            yield "decision", payload, step.slopes.astype("<f4").tobytes()


def decision_of(payload: dict[str, Any]) -> Decision:
    """The decision that a row of `Round.entries` holds."""
    names = ("num_masks", "statistic", "threshold", "best", "second", "outcome", "mask", "freed")
    return Decision(**{name: payload[name] for name in names}, standing_out=tuple(payload["standing_out"]))
