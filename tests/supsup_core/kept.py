"""A checkpoint for tests, in memory."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from supsup_core.training.checkpoint import Checkpoint


class Kept(Checkpoint):
    """States in memory, one every seven batches; the power goes off while the third is being saved."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []
        self.power_goes_off = True
        self._asked = 0

    def kept(self) -> list[dict[str, Tensor]]:
        return self.states[::-1]

    def due(self) -> bool:
        self._asked += 1
        return self._asked % 7 == 0

    def save(self, done: int, state: Mapping[str, Tensor]) -> None:
        if self.power_goes_off and len(self.states) == 2:
            raise KeyboardInterrupt
        self.states.append({name: tensor.clone() for name, tensor in state.items()})
