"""Checkpoints of a task that takes long, while it is being trained."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, final

from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.facts import UnfinishedFacts
from supsup_core.errors import CorruptError
from supsup_core.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

GENERATIONS = 2
"""Checkpoints kept of a task: should the newest be corrupt, the one before it is used."""

COST_SHARE = 50
"""Saving takes at most one part in so many of the time: large nets are saved less often."""


@final
class StoredCheckpoint(Checkpoint):
    """Checkpoints of one job's training, as artifacts beside those of the store.

    `resumed_at`: batches that had been done when training was resumed from a checkpoint. `seconds_before`: the seconds
    that those had taken.
    """

    def __init__(self, store: ArtifactStore, key: str, every: float = 0.0) -> None:
        """store: where the job's results will be. every: seconds between checkpoints."""
        self.resumed_at = 0
        self.seconds_before = 0.0
        self._checkpoints = store.unfinished
        self._key = key
        self._every = every
        self._wait = every
        self._started = self._last = time.monotonic()

    def _keys(self) -> list[str]:
        """The keys of all checkpoints there are, the newest first."""
        return sorted(self._checkpoints.numbered(self._key), reverse=True)

    def stored_states(self) -> Iterator[Mapping[str, Tensor]]:
        for key in self._keys():
            try:
                found = self._checkpoints.get(key)
            except (CorruptError, FileNotFoundError):
                self._checkpoints.delete(key)  # nothing is lost: an earlier checkpoint leads past the same state
                continue
            assert isinstance(found.facts, UnfinishedFacts)
            self.resumed_at, self.seconds_before = found.facts.batches, found.facts.seconds
            yield found.tensors
            self.resumed_at, self.seconds_before = 0, 0.0  # the caller could not use it, and asks for an older one

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._wait

    def save(self, done: int, state: Mapping[str, Tensor]) -> None:
        started = time.monotonic()
        tensors = {name: tensor.cpu() for name, tensor in state.items()}
        facts = UnfinishedFacts(done, self.seconds_before + started - self._started)
        self._checkpoints.put(f"{self._key}-{done:012}", tensors, facts)
        for key in self._keys()[GENERATIONS:]:
            self._checkpoints.delete(key)
        self._last = time.monotonic()
        self._wait = max(self._every, COST_SHARE * (self._last - started))

    def clear(self) -> None:
        """Delete all checkpoints: the task is trained and stored."""
        for key in self._keys():
            self._checkpoints.delete(key)
