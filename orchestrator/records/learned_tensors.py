"""Reads the tensors of trained tasks and masks from artifacts, in the form that a learner loads."""

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
"""Prefixes of an artifact's tensor names. LEARNED: needed for inference. TRAINING: needed for further training."""


def task_state(store: ArtifactStore, key: str, superseded: bool = False) -> dict[str, Tensor]:
    """Returns the tensors that a method stored for a task, by name.

    superseded: whether a later task of the same learner holds newer shared tensors (see SHARED). If so, those of this
    task are left out. Raises CorruptArtifactError if the artifact is missing or corrupt.
    """
    tensors = {name.removeprefix(LEARNED): tensor for name, tensor in store.require(key).tensors.items()}
    return {name: tensor for name, tensor in tensors.items() if not (superseded and name.startswith(SHARED))}


def states_of(keys: Sequence[str], store: ArtifactStore, are_masks: bool) -> list[dict[str, Tensor]]:
    """Returns the stored tensors of each task or mask, in the form that a learner loads. keys: their content keys.

    are_masks: whether `keys` are the keys of mask versions in scenario NNs, and not of trained tasks. Raises
    CorruptArtifactError if an artifact is missing or corrupt.
    """
    if are_masks:
        return [{"mask": read_mask(store, key)} for key in keys]
    return [task_state(store, key, superseded=key != keys[-1]) for key in keys]


def read_mask(versions: ArtifactStore, key: str) -> Tensor:
    """Reads the encoded mask of a mask version. Returns it as a tensor of bytes, after verifying the mask's checksum.

    Raises CorruptArtifactError if the artifact is missing or corrupt.
    """
    try:
        blob = versions.tensor(key, f"{LEARNED}mask")
        with contextlib.suppress(CorruptError):
            codec.decode(blob.numpy().tobytes())
            return blob
        blob = versions.get(key).tensors[f"{LEARNED}mask"]  # `get` replaces a corrupt copy from the storage
        codec.decode(blob.numpy().tobytes())
        return blob
    except FileNotFoundError as error:
        raise CorruptArtifactError(key, f"{versions.path(key)}: missing") from error
    except CorruptError as error:
        raise CorruptArtifactError(key, str(error)) from error
