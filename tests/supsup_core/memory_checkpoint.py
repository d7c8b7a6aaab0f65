"""A checkpoint in memory, for tests."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from supsup_core.training.checkpoint import Checkpoint


class MemoryCheckpoint(Checkpoint):
    """A checkpoint that saves a state every seven batches. The third save interrupts the training."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []
        self.interrupts = True
        self._asked = 0

    def stored_states(self) -> list[dict[str, Tensor]]:
        return self.states[::-1]

    def due(self) -> bool:
        self._asked += 1
        return self._asked % 7 == 0

    def save(self, done: int, state: Mapping[str, Tensor]) -> None:
        if self.interrupts and len(self.states) == 2:
            raise KeyboardInterrupt
        self.states.append({name: tensor.clone() for name, tensor in state.items()})
