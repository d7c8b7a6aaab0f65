"""Reads the tensors of trained tasks and masks from artifacts, in the form that a learner loads.

Masks belong to the frozen weights W with which they were trained. W is drawn from a seed and never stored. If another
version of a library draws a different W, the functions of this module raise an error instead of returning masks that do
not fit W.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.records import this_machine
from orchestrator.records.artifact_format import CorruptArtifactError
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.facts import Facts, provenance_of
from orchestrator.records.machine_kind import Machines, Provenance, check_weights, joined
from supsup_core.errors import CorruptError
from supsup_core.masks import codec
from supsup_core.methods import SHARED, Problem
from supsup_core.nets import weights_sha256

if TYPE_CHECKING:
    from torch import Tensor

LEARNED, TRAINING = "state.", "training."
"""Prefixes of an artifact's tensor names. LEARNED: for tensors that inference needs. TRAINING: for tensors that only
further training needs."""


class StoredStates(NamedTuple):
    """The stored tensors of several tasks or masks, by name. `machines`: the machine kinds that computed the
    tensors."""

    states: list[dict[str, Tensor]]
    machines: Machines


def provenance_here(problem: Problem, threads: int = 1, deterministic: bool = False, tf32: bool = False) -> Provenance:
    """Returns the provenance of this process for a problem. threads, deterministic, tf32: see `this_machine`."""
    machine = this_machine.this_machine(problem.device, threads, deterministic, tf32)
    return Provenance(Machines([machine]), weights_sha256(problem.weights))


def states_of(keys: Sequence[str], store: ArtifactStore, are_masks: bool, here: Provenance) -> StoredStates:
    """Reads the stored tensors of tasks or masks, in the form that a learner loads. keys: the content keys of the tasks
    or masks.

    are_masks: whether `keys` are the keys of mask versions in scenario NNs, and not of trained tasks. here: the
    provenance of this process. Tensors that the tasks share (see SHARED) are returned only for the last task. Raises
    CorruptArtifactError if an artifact is missing or corrupt, and SupSupError if it was computed with other frozen
    weights (see `machine_kind.check_weights`).
    """
    states, machines = [], []
    for key in keys:
        if are_masks:
            mask, facts = read_version(store, key, here)
            states.append({"mask": mask})
        else:
            artifact = store.require(key)
            facts = artifact.facts
            check_weights(store.path(key), provenance_of(facts), here)
            found = {name.removeprefix(LEARNED): tensor for name, tensor in artifact.tensors.items()}
            states.append({n: t for n, t in found.items() if key == keys[-1] or not n.startswith(SHARED)})
        machines.append(facts.machines)
    return StoredStates(states, joined(*machines))


def read_version(versions: ArtifactStore, key: str, here: Provenance | None = None) -> tuple[Tensor, Facts]:
    """Reads the encoded mask of a mask version, as a tensor of bytes, and the version's facts.

    Verifies only the checksum of the mask. here: the provenance of this process; None skips the check of the frozen
    weights. Raises CorruptArtifactError if the artifact is missing or corrupt, and SupSupError if it was
    computed with other frozen weights.
    """
    try:
        blob, facts = _read_mask(versions, key)
    except FileNotFoundError as error:
        raise CorruptArtifactError(key, f"{versions.path(key)}: missing") from error
    except CorruptError as error:
        raise CorruptArtifactError(key, str(error)) from error
    if here is not None and not provenance_of(facts).fits(here):
        verified = versions.require(key).facts
        check_weights(versions.path(key), provenance_of(verified), here)
    return blob, facts


def read_mask(versions: ArtifactStore, key: str) -> Tensor:
    """Reads the encoded mask of a mask version. See `read_version`."""
    return read_version(versions, key)[0]


def _read_mask(versions: ArtifactStore, key: str) -> tuple[Tensor, Facts]:
    """Returns the verified mask of a mask version, and the version's facts.

    Raises CorruptError if the mask is corrupt, and FileNotFoundError if the mask is missing.
    """
    blob, facts = versions.tensor_and_facts(key, f"{LEARNED}mask")
    try:
        codec.decode(blob.numpy().tobytes())
    except CorruptError:
        artifact = versions.get(key)  # `get` replaces a corrupt copy from the storage
        blob, facts = artifact.tensors[f"{LEARNED}mask"], artifact.facts
        codec.decode(blob.numpy().tobytes())
    return blob, facts
