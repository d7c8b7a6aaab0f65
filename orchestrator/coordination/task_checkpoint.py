"""Where a worker keeps a task that takes long, while it is being trained."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from orchestrator.records.artifact_store import ArtifactStore
from supsup_core.errors import CorruptError
from supsup_core.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

GENERATIONS = 2
"""States kept of a task: should the newest turn out bad, there is the one before."""

_COST_SHARE = 50
"""Saving takes at most one part in so many of the time: large nets are saved less often."""


class StoredCheckpoint(Checkpoint):
    """States of one shard's training, as artifacts of their own beside the store's."""

    def __init__(self, store: ArtifactStore, key: str, every: float = 0.0) -> None:
        """store: where the shard itself will be. every: seconds between states."""
        self._states = store.child("unfinished")
        self._key = key
        self._every = every
        self._wait = every
        self._started = self._last = time.monotonic()
        self.resumed_at = 0
        """Batches that had been done when training was taken up."""
        self.seconds_before = 0.0
        """Seconds that those had taken."""

    def _keys(self) -> list[str]:
        """Of all states there are, the newest first."""
        return sorted(self._states.beginning(self._key), reverse=True)

    def kept(self) -> Iterator[Mapping[str, Tensor]]:
        for key in self._keys():
            try:
                found = self._states.get(key)
            except (CorruptError, FileNotFoundError):
                self._states.delete(key)  # nothing is lost: it is on the way, and passed again
                continue
            self.resumed_at, self.seconds_before = found.facts["batches"], found.facts["seconds"]
            yield found.tensors
            self.resumed_at, self.seconds_before = 0, 0.0  # it was not taken

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._wait

    def save(self, done: int, state: Mapping[str, Tensor]) -> None:
        started = time.monotonic()
        tensors = {name: tensor.cpu() for name, tensor in state.items()}
        facts = {"kind": "unfinished", "batches": done, "seconds": self.seconds_before + started - self._started}
        self._states.put(f"{self._key}-{done:012}", tensors, facts)
        for key in self._keys()[GENERATIONS:]:
            self._states.delete(key)
        self._last = time.monotonic()
        self._wait = max(self._every, _COST_SHARE * (self._last - started))

    def clear(self) -> None:
        """The task has been trained, and its result is kept: these states are needed no more."""
        for key in self._keys():
            self._states.delete(key)
