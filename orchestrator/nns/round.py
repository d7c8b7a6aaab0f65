"""One round of NNs: the decision for the next segment of every stream, and the training of the chosen masks.

The results do not depend on which worker does which job, or when. A round decides only after the decision vectors of
all streams have arrived. All decisions of a round use the masks from before the round.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import torch

from orchestrator.base import failpoints
from orchestrator.coordination.messages import AdvancedMask, AdvanceJob, DecideJob, DecisionVector
from orchestrator.nns.mask_versions import Lineages
from orchestrator.records.ledgers.ledger import Entry
from orchestrator.records.rows import SegmentDecided
from supsup_core.masks import codec
from supsup_core.nns.allocation_tests import Slopes
from supsup_core.nns.allocator import Allocator, Decision
from supsup_core.nns.streams import Segment


@dataclass
class DecidedSegment:
    """One segment of the round, the decision for it, and the result of its training.

    `slopes`: the slopes on which the decision is based: one for each of the k masks in use, then one for each untrained
    mask. `key`: the key of the mask version after this segment; None if no mask is trained. `length`: the number of
    segments that this version is trained on. `loss`: the mean training loss on this segment. `seconds`: the training
    time. `done`: whether the training is done; True if no mask is trained.
    """

    stream: int
    segment: Segment
    decision: Decision
    slopes: Slopes
    key: str | None = None
    length: int = 0
    loss: float | None = None
    seconds: float = 0.0
    done: bool = False


class RoundJob(NamedTuple):
    """A job that a round waits for, the job's stream, and the mask that the job trains (None for a DecideJob)."""

    job: DecideJob | AdvanceJob
    stream: int
    mask: int | None


@final
class Round:
    """The work of one round, from the streams' segments to the trained masks.

    `decided`: the decided segments in the order of the streams; empty until all decision vectors have arrived.
    `latency`: the seconds that the decisions took. The latency includes the time of the superposition, of the slowest
    decision vector and of the slopes. `started`: when the round began, in seconds of the monotonic clock.
    """

    def __init__(
        self, number: int, segments: Sequence[tuple[int, Segment]], allocator: Allocator, lineages: Lineages
    ) -> None:
        """segments: for each stream that has a segment left, the stream's number and next segment.

        If no mask is in use yet, makes the decisions immediately. Each decision extends the lineage of the chosen mask.
        """
        self.number = number
        self.started = time.monotonic()
        self.decided: list[DecidedSegment] = []
        self._segments = segments
        self._allocator = allocator
        self._lineages = lineages
        self._vectors: dict[int, torch.Tensor] = {}
        self._vector_seconds: list[float] = []
        started = time.perf_counter()
        self._superposition = allocator.superposition()
        self.latency = time.perf_counter() - started
        failpoints.reach("round_opened", number)
        if self._superposition is None:
            self._decide()

    @property
    def over(self) -> bool:
        """Whether all segments of the round are decided and trained."""
        return bool(self.decided) and all(entry.done for entry in self.decided)

    def _decide(self) -> None:
        failpoints.reach("deciding", self.number)
        started = time.perf_counter()
        if self._superposition is None:
            slopes: Slopes = np.zeros((len(self._segments), 0))
        else:
            vectors = torch.stack([self._vectors[stream] for stream, _ in self._segments])
            slopes = self._allocator.slopes(vectors)
        decisions = self._allocator.decide(slopes)
        self.latency += max(self._vector_seconds, default=0.0) + time.perf_counter() - started
        for (stream, segment), decision, row in zip(self._segments, decisions, slopes, strict=True):
            entry = DecidedSegment(stream, segment, decision, row)
            if decision.mask is None:
                entry.done = True
            else:
                entry.key = self._lineages.extend(decision.mask, segment)
                entry.length = len(self._lineages[decision.mask].segments)
            self.decided.append(entry)
        failpoints.reach("decided", self)

    def jobs(self, stored: Collection[str]) -> Iterator[RoundJob]:
        """Yields the jobs that the round waits for. stored: the keys of the mask versions on disk."""
        if not self.decided:
            assert self._superposition is not None
            for stream, segment in self._segments:
                if stream not in self._vectors:
                    key = self._vector_key(stream)
                    job = DecideJob(key, self._superposition.numpy(), segment.task, segment.index)
                    yield RoundJob(job, stream, None)
            return
        waiting: set[int] = set()
        for entry in self.decided:
            mask = entry.decision.mask
            if entry.done or entry.key is None or mask is None or mask in waiting:
                continue  # segments of the same mask are trained one after another
            waiting.add(mask)
            version = self._lineages[mask].version(stored, entry.length)
            yield RoundJob(AdvanceJob(entry.key, version), entry.stream, mask)

    def _vector_key(self, stream: int) -> str:
        return f"decide-{self.number}-{stream}"

    def waits_for(self, key: str) -> bool:
        """Returns whether a decision of the round needs the mask version with this key."""
        return any(entry.key == key for entry in self.decided)

    def masks_in_training(self) -> set[int]:
        """Returns the numbers of the masks that this round has chosen and whose training is not done."""
        return {entry.decision.mask for entry in self.decided if entry.decision.mask is not None and not entry.done}

    def add_vector(self, key: str, product: DecisionVector) -> bool:
        """Receives the decision vector of one stream. After the last vector, makes the decisions.

        key: the key of the DecideJob. Ignores a vector that the round does not wait for. Returns whether this call made
        the decisions.
        """
        if self.decided:
            return False
        for stream, _ in self._segments:
            if key == self._vector_key(stream) and stream not in self._vectors:
                self._vectors[stream] = torch.from_numpy(np.array(product.vector))
                self._vector_seconds.append(product.seconds)
        if len(self._vectors) == len(self._segments):
            self._decide()
        return bool(self.decided)

    def add_mask(self, key: str, product: AdvancedMask) -> int | None:
        """Adds a trained mask version. Returns the mask's number, or None if the round does not wait for this version.

        Passes the mask's bits to the allocator, unless a later version of the same mask has already arrived.
        """
        for index, entry in enumerate(self.decided):
            mask = entry.decision.mask
            if entry.key == key and not entry.done and mask is not None:
                later = self.decided[index + 1 :]
                if not any(other.done and other.decision.mask == mask for other in later):
                    self._allocator.trained(mask, codec.decode(product.mask)[0])
                entry.loss, entry.seconds, entry.done = product.loss, product.seconds, True
                return mask
        return None

    def entries(self, first: int) -> Iterator[Entry]:
        """Yields the ledger entry of each decision. first: the number of segments in all earlier rounds of the run."""
        for ordinal, entry in enumerate(self.decided, start=first):
            decision = entry.decision
            event = SegmentDecided(
                round=self.number, ordinal=ordinal, stream=entry.stream, task=entry.segment.task,
                segment=entry.segment.index, num_masks=decision.num_masks, statistic=float(decision.statistic),
                threshold=float(decision.threshold), best=decision.best, second=decision.second,
                outcome=decision.outcome, mask=decision.mask, freed=decision.freed,
                standing_out=tuple(decision.standing_out), margin=float(decision.margin), key=entry.key,
                loss=entry.loss, seconds=entry.seconds, latency=self.latency,
            )  # fmt: skip
            yield Entry(event, entry.slopes.astype("<f4").tobytes())


def decision_of(event: SegmentDecided) -> Decision:
    """Returns the decision that a ledger event holds."""
    return Decision(
        event.num_masks, event.statistic, event.threshold, event.best, event.second, event.outcome, event.mask,
        event.freed, event.standing_out,
    )  # fmt: skip
