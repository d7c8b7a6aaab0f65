"""Stores checkpoints of a task in training. An interrupted training resumes from its newest intact checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, final

from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.facts import UnfinishedFacts, provenance_of
from orchestrator.records.machine_kind import Provenance, check_weights
from supsup_core.errors import CorruptError
from supsup_core.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

GENERATIONS = 2
"""The number of checkpoints that are kept for each job. If the newest checkpoint is corrupt, training resumes from the
older one."""

COST_SHARE = 50
"""Saving checkpoints takes at most 1/COST_SHARE of the training time. Large nets are therefore saved less often."""


@final
class StoredCheckpoint(Checkpoint):
    """Stores the checkpoints of one job's training as artifacts, in the store's subfolder `unfinished`.

    `resumed_at`: the number of batches in the checkpoint from which training resumed; 0 if training did not resume.
    `seconds_before`: the training time of these batches in seconds. `provenance`: the provenance of all training of the
    job so far, including the training before the checkpoint.
    """

    def __init__(self, store: ArtifactStore, key: str, every: float = 0.0) -> None:
        """store: the store of the job's results. key: the job's key. every: the shortest time between two checkpoints,
        in seconds."""
        self.resumed_at = 0
        self.seconds_before = 0.0
        self.provenance = self._here = Provenance()
        self._checkpoints = store.unfinished
        self._key = key
        self._every = every
        self._wait = every
        self._started = self._last = time.monotonic()

    def begin(self, here: Provenance) -> None:
        """Sets the provenance of this process. Call this method before the training."""
        self.provenance = self._here = here

    def _keys(self) -> list[str]:
        """Returns the keys of all stored checkpoints of the job, the newest first."""
        return sorted(self._checkpoints.numbered(self._key), reverse=True)

    def stored_states(self) -> Iterator[Mapping[str, Tensor]]:
        for key in self._keys():
            try:
                found = self._checkpoints.get(key)
            except (CorruptError, FileNotFoundError):
                self._checkpoints.delete(key)  # training resumed from an earlier checkpoint gives the same bits
                continue
            assert isinstance(found.facts, UnfinishedFacts)
            check_weights(self._checkpoints.path(key), provenance_of(found.facts), self._here)
            self.resumed_at, self.seconds_before = found.facts.batches, found.facts.seconds
            self.provenance = self._here.with_machines(found.facts.machines)
            yield found.tensors
            self.resumed_at, self.seconds_before, self.provenance = 0, 0.0, self._here  # this state was unusable

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._wait

    def save(self, done: int, state: Mapping[str, Tensor]) -> None:
        started = time.monotonic()
        tensors = {name: tensor.cpu() for name, tensor in state.items()}
        seconds = self.seconds_before + started - self._started
        facts = UnfinishedFacts(done, seconds, self.provenance.machines, self.provenance.weights_sha256)
        self._checkpoints.put(f"{self._key}-{done:012}", tensors, facts)
        for key in self._keys()[GENERATIONS:]:
            self._checkpoints.delete(key)
        self._last = time.monotonic()
        self._wait = max(self._every, COST_SHARE * (self._last - started))

    def clear(self) -> None:
        """Deletes all checkpoints of the job. Call this method after the trained task is stored."""
        for key in self._keys():
            self._checkpoints.delete(key)
