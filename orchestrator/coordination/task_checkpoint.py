"""Checkpoints of a task in training, from which an interrupted training resumes."""

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
"""How many checkpoints of a task are kept. If the newest is corrupt, the one before it is used."""

COST_SHARE = 50
"""Saving checkpoints takes at most 1/COST_SHARE of the time. Large nets are therefore saved less often."""


@final
class StoredCheckpoint(Checkpoint):
    """Stores the checkpoints of one job's training as artifacts, in the store's subfolder `unfinished`.

    `resumed_at`: batches that were done before training resumed from a checkpoint. `seconds_before`: the seconds that
    these batches took.
    """

    def __init__(self, store: ArtifactStore, key: str, every: float = 0.0) -> None:
        """store: the store of the job's results. key: the job's key. every: least seconds between checkpoints."""
        self.resumed_at = 0
        self.seconds_before = 0.0
        self._checkpoints = store.unfinished
        self._key = key
        self._every = every
        self._wait = every
        self._started = self._last = time.monotonic()

    def _keys(self) -> list[str]:
        """Returns the keys of all stored checkpoints of the job, the newest first."""
        return sorted(self._checkpoints.numbered(self._key), reverse=True)

    def stored_states(self) -> Iterator[Mapping[str, Tensor]]:
        for key in self._keys():
            try:
                found = self._checkpoints.get(key)
            except (CorruptError, FileNotFoundError):
                self._checkpoints.delete(key)  # training from an earlier checkpoint reaches the same state
                continue
            assert isinstance(found.facts, UnfinishedFacts)
            self.resumed_at, self.seconds_before = found.facts.batches, found.facts.seconds
            yield found.tensors
            self.resumed_at, self.seconds_before = 0, 0.0  # the caller could not use this checkpoint

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
        """Deletes all checkpoints of the job. Call this once the trained task is stored."""
        for key in self._keys():
            self._checkpoints.delete(key)
