"""Artifacts: whole or absent, verified to the byte, claimed by one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from orchestrator.records.artifact_store import ArtifactStore
from supsup_core.errors import CorruptError

KEY = "ab12" * 10
TENSORS = {"state.mask": torch.arange(20, dtype=torch.uint8), "other": torch.ones(3)}
FACTS = {"task": 3, "accuracy": 0.5, "text": 'a "sha256":" trap'}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def test_what_is_put_is_got(store: ArtifactStore) -> None:
    assert not store.has(KEY)
    written = store.put(KEY, TENSORS, FACTS)
    found = store.get(KEY)
    assert store.has(KEY)
    assert found.facts == FACTS
    assert found.sha256 == written.sha256
    assert found.num_bytes == store.path(KEY).stat().st_size
    assert all(torch.equal(found.tensors[name], TENSORS[name]) for name in TENSORS)


def test_a_plain_safetensors_reader_can_open_it(store: ArtifactStore) -> None:
    store.put(KEY, TENSORS, FACTS)
    assert torch.equal(safetensors.torch.load_file(store.path(KEY))["other"], torch.ones(3))


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    blobs = set()
    for number in range(5):
        store = ArtifactStore(tmp_path / str(number))
        store.put(KEY, dict(reversed(TENSORS.items())) if number % 2 else TENSORS, FACTS)
        blobs.add(store.path(KEY).read_bytes())
    assert len(blobs) == 1


def test_every_flipped_byte_is_found_and_named(store: ArtifactStore) -> None:
    store.put(KEY, TENSORS, FACTS)
    good = store.path(KEY).read_bytes()
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1
        store.path(KEY).write_bytes(bad)
        with pytest.raises(CorruptError, match=KEY):
            store.get(KEY)


@pytest.mark.parametrize("length", [0, 7, 50, -1])
def test_a_truncated_artifact_is_found(store: ArtifactStore, length: int) -> None:
    store.put(KEY, TENSORS, FACTS)
    store.path(KEY).write_bytes(store.path(KEY).read_bytes()[:length])
    with pytest.raises(CorruptError, match=KEY):
        store.get(KEY)


def test_an_artifact_under_the_wrong_key_is_found(store: ArtifactStore) -> None:
    store.put(KEY, TENSORS, FACTS)
    other = "cd34" * 10
    store.path(other).parent.mkdir()
    store.path(KEY).rename(store.path(other))
    with pytest.raises(CorruptError, match="another key"):
        store.get(other)


def test_quarantine_keeps_every_bad_file(store: ArtifactStore) -> None:
    for content in (b"one", b"two"):
        store.path(KEY).parent.mkdir(parents=True, exist_ok=True)
        store.path(KEY).write_bytes(content)
        assert store.quarantine(KEY).read_bytes() == content
    assert not store.has(KEY)
    assert len(list((store.root / "corrupt").iterdir())) == 2


def test_a_claim_is_exclusive_between_processes_and_ends_with_its_holder(store: ArtifactStore) -> None:
    code = (
        "import sys, time; from pathlib import Path; from orchestrator.records.artifact_store import ArtifactStore\n"
        "with ArtifactStore(Path(sys.argv[1])).claim(sys.argv[2]) as mine:\n"
        "    print(mine, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(store.root), KEY], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with store.claim(KEY) as mine:
            assert not mine
        with store.claim("cd34" * 10) as other:
            assert other
        holder.kill()
        holder.wait()
        with store.claim(KEY) as mine:
            assert mine
