"""The byte format of artifacts: equal content gives equal bytes, and facts and keys are checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from orchestrator.records.artifact_format import decode, encode, verify
from orchestrator.records.facts import Facts
from supsup_core.errors import CorruptError
from tests.records.samples import EVALUATED, TRAINED, UNFINISHED, VERSION

KEY, OTHER = "ab12" * 10, "cd34" * 10
TENSORS = {"state.mask": torch.arange(20, dtype=torch.uint8), "other": torch.ones(3)}
FACTS = replace(TRAINED, device='a "sha256":" trap')


@pytest.mark.parametrize("facts", [FACTS, EVALUATED, UNFINISHED, VERSION], ids=lambda facts: facts.kind)
def test_tensors_and_facts_are_read_back(facts: Facts) -> None:
    blob, digest = encode(KEY, TENSORS, facts)
    found = decode(KEY, blob, verify(KEY, blob, "here"), "here")
    assert (found.key, found.facts, found.sha256, found.num_bytes) == (KEY, facts, digest, len(blob))
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[name], TENSORS[name]) for name in TENSORS)


def test_the_safetensors_library_can_read_an_artifact(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(encode(KEY, TENSORS, FACTS)[0])
    assert torch.equal(safetensors.torch.load_file(tmp_path / "file")["other"], torch.ones(3))


def test_equal_content_gives_equal_bytes() -> None:
    orders = [dict(reversed(TENSORS.items())) if number % 2 else TENSORS for number in range(5)]
    assert len({encode(KEY, tensors, FACTS)[0] for tensors in orders}) == 1


def test_an_artifact_without_facts_of_a_known_kind_is_refused() -> None:
    blob, _ = encode(KEY, TENSORS, FACTS)
    header = verify(KEY, blob, "here")
    for node in ({}, {"kind": "other"}, {"kind": "version"}, [], None):
        with pytest.raises(CorruptError, match=r"^here: not a readable artifact .*facts"):
            decode(KEY, blob, replace(header, facts=node), "here")


def test_an_artifact_with_another_key_is_refused() -> None:
    with pytest.raises(CorruptError, match="here: holds the artifact of another key"):
        verify(OTHER, encode(KEY, TENSORS, FACTS)[0], "here")
