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
        """The stored states that can be read, newest first."""

    @abstractmethod
    def due(self) -> bool:
        """Whether a checkpoint should be saved now. The training loop calls this method after every batch."""

    @abstractmethod
    def save(self, done: int, state: Mapping[str, Tensor]) -> None:
        """Store the tensors of `state`, by name, as the state after `done` batches.

        An implementation must copy the tensors before it returns, because training changes them in place.
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
