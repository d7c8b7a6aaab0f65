"""The interface of checkpoints, which hold the state of one task's training in progress."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from torch import Tensor


class Checkpoint(ABC):
    """Stores the state of one task's training, so that the training resumes after a crash instead of restarting."""

    @abstractmethod
    def stored_states(self) -> Iterable[Mapping[str, Tensor]]:
        """The readable stored states, newest first."""

    @abstractmethod
    def due(self) -> bool:
        """Whether a checkpoint should be saved now. The training loop calls this after every batch."""

    @abstractmethod
    def save(self, done: int, state: Mapping[str, Tensor]) -> None:
        """Store the state after `done` batches.

        Copy its tensors before returning, since training goes on changing them.
        """


@final
class _Nowhere(Checkpoint):
    def stored_states(self) -> Iterable[Mapping[str, Tensor]]:
        return ()

    def due(self) -> bool:
        return False

    def save(self, done: int, state: Mapping[str, Tensor]) -> None:
        raise AssertionError("never due")


NOWHERE = _Nowhere()
"""A checkpoint that stores nothing."""
