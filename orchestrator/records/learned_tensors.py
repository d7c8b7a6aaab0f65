"""What artifacts hold of a task or a mask, read back as a learner takes it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.records.artifact_format import CorruptArtifactError
from orchestrator.records.artifact_store import ArtifactStore
from supsup_core.errors import CorruptError
from supsup_core.masks import codec
from supsup_core.methods import SHARED

if TYPE_CHECKING:
    from torch import Tensor

LEARNED, TRAINING = "state.", "training."
"""Prefixes of an artifact's tensors: those that answering needs, and those that further training needs."""


def task_state(store: ArtifactStore, key: str, superseded: bool = False) -> dict[str, Tensor]:
    """The tensors that a method stored of a task.

    superseded: leave out the shared tensors, whose place a later task's take. CorruptArtifactError when the artifact is
    damaged or gone.
    """
    tensors = {name.removeprefix(LEARNED): tensor for name, tensor in store.require(key).tensors.items()}
    return {name: tensor for name, tensor in tensors.items() if not (superseded and name.startswith(SHARED))}


def states_of(keys: Sequence[str], store: ArtifactStore, are_masks: bool) -> list[dict[str, Tensor]]:
    """The states with these keys, as a learner takes them.

    are_masks: the store holds mask versions of an NNs group, not whole tasks. CorruptArtifactError when an artifact is
    damaged or gone.
    """
    if are_masks:
        return [{"mask": read_mask(store, key)} for key in keys]
    return [task_state(store, key, superseded=key != keys[-1]) for key in keys]


def read_mask(versions: ArtifactStore, key: str) -> Tensor:
    """The mask blob of a stored version, verified by its own checksum. CorruptArtifactError when it cannot be had."""
    try:
        blob = versions.tensor(key, f"{LEARNED}mask")
        with contextlib.suppress(CorruptError):
            codec.decode(blob.numpy().tobytes())
            return blob
        blob = versions.get(key).tensors[f"{LEARNED}mask"]  # a bad copy of a sound one is replaced by this
        codec.decode(blob.numpy().tobytes())
        return blob
    except FileNotFoundError as error:
        raise CorruptArtifactError(key, f"{versions.path(key)}: missing") from error
    except CorruptError as error:
        raise CorruptArtifactError(key, str(error)) from error
