"""Where the training of a task is kept while it is under way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from torch import Tensor


class Checkpoint(ABC):
    """Where the training of one task is kept while it is under way, so that it need not begin again after a crash."""

    @abstractmethod
    def kept(self) -> Iterable[Mapping[str, Tensor]]:
        """The states that were saved and can be read, the newest first."""

    @abstractmethod
    def due(self) -> bool:
        """Whether it is time to save. Asked after every batch."""

    @abstractmethod
    def save(self, done: int, state: Mapping[str, Tensor]) -> None:
        """Keep the state after `done` batches; its tensors change once this returns."""


@final
class _Nowhere(Checkpoint):
    def kept(self) -> Iterable[Mapping[str, Tensor]]:
        return ()

    def due(self) -> bool:
        return False

    def save(self, done: int, state: Mapping[str, Tensor]) -> None:
        raise AssertionError("never due")


NOWHERE = _Nowhere()
"""Training is not kept until it is over."""
