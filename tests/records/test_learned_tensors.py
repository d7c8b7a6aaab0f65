"""Masks and task states, read from artifacts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.base.output_folder import ArtifactFolder
from orchestrator.records.artifact_format import CorruptArtifactError
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.learned_tensors import LEARNED, read_mask, states_of
from orchestrator.records.machine_kind import Provenance
from supsup_core.masks import codec
from supsup_core.methods import SHARED
from tests.records.samples import TRAINED, VERSION

KEY, OTHER = "ab" * 16, "cd" * 16


def blob() -> torch.Tensor:
    packed = codec.pack(np.random.default_rng(0).random(200) < 0.5)
    return torch.from_numpy(np.frombuffer(codec.encode(packed, 200, [200]), np.uint8).copy())


def test_a_mask_whose_local_copy_is_corrupt_is_read_from_the_storage(
    stores: tuple[ArtifactStore, ArtifactStore],
) -> None:
    one, other = stores
    one.put(KEY, {"state.mask": blob()}, VERSION)
    path = one.path(KEY)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # a byte of the mask
    path.write_bytes(content)
    assert torch.equal(read_mask(one, KEY), blob())
    path.write_bytes(b"no artifact at all")
    assert torch.equal(read_mask(one, KEY), blob())
    assert torch.equal(read_mask(other, KEY), blob())


def test_a_mask_that_is_missing_or_corrupt_is_named_by_its_key(tmp_path: Path) -> None:
    store = ArtifactStore(ArtifactFolder(tmp_path))
    with pytest.raises(CorruptArtifactError, match="missing") as missing:
        read_mask(store, KEY)
    store.put(KEY, {"state.mask": blob()}, VERSION)
    content = bytearray(store.path(KEY).read_bytes())
    content[-3] ^= 1
    store.path(KEY).write_bytes(content)
    with pytest.raises(CorruptArtifactError) as corrupt:
        read_mask(store, KEY)
    assert missing.value.key == corrupt.value.key == KEY


def test_only_the_state_of_the_last_task_contains_the_shared_tensors(tmp_path: Path) -> None:
    store = ArtifactStore(ArtifactFolder(tmp_path))
    for key in (KEY, OTHER):
        tensors = {f"{LEARNED}mask": torch.ones(2), f"{LEARNED}{SHARED}weight": torch.zeros(3)}
        store.put(key, tensors, TRAINED)
    here = Provenance(TRAINED.machines, TRAINED.weights_sha256)
    assert [state.keys() for state in states_of([KEY], store, False, here).states] == [{"mask", f"{SHARED}weight"}]
    assert [state.keys() for state in states_of([KEY, OTHER], store, False, here).states] == [
        {"mask"},
        {"mask", f"{SHARED}weight"},
    ]
