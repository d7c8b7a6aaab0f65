"""The artifact store, with and without a storage: atomic writes, verified reads, and claims on keys."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orchestrator.base.failpoints import set_failpoint
from orchestrator.base.output_folder import ArtifactFolder
from orchestrator.records.artifact_format import CorruptArtifactError
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.object_storage import Storage
from supsup_core.errors import CorruptError, MachineError
from tests.records.samples import TRAINED

KEY, OTHER = "ab12" * 8, "cd34" * 8
TENSORS = {"state.mask": torch.arange(20, dtype=torch.uint8), "other": torch.ones(3)}
WEIGHTS = {"weight": torch.full((50,), 1.0)}
FACTS = replace(TRAINED, device='a "sha256":" trap')


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """An empty store without a storage."""
    return ArtifactStore(ArtifactFolder(tmp_path / "store"))


def opened(path: Path, storage: Storage | None = None, limit: int | None = None) -> ArtifactStore:
    return ArtifactStore(ArtifactFolder(path), storage, limit)


def test_an_artifact_that_was_put_is_read_back(store: ArtifactStore) -> None:
    assert not store.has(KEY)
    written = store.put(KEY, TENSORS, FACTS)
    found = store.get(KEY)
    assert store.has(KEY)
    assert found.facts == FACTS
    assert found.sha256 == written.sha256
    assert found.num_bytes == store.path(KEY).stat().st_size
    assert all(torch.equal(found.tensors[name], TENSORS[name]) for name in TENSORS)


def test_every_flipped_byte_is_detected_and_its_file_named(store: ArtifactStore) -> None:
    store.put(KEY, TENSORS, FACTS)
    good = store.path(KEY).read_bytes()
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1
        store.path(KEY).write_bytes(bad)
        with pytest.raises(CorruptError, match=KEY):
            store.get(KEY)


def test_a_file_in_the_place_of_another_is_refused_by_every_way_to_read_it(store: ArtifactStore) -> None:
    store.put(KEY, TENSORS, FACTS)
    store.put(OTHER, TENSORS | WEIGHTS, FACTS)
    os.replace(store.path(OTHER), store.path(KEY))
    for read in (store.get, store.require, store.verify, lambda key: store.tensor(key, "weight")):
        with pytest.raises(CorruptError, match=f"{KEY}.*holds the artifact of another key, {OTHER}"):
            read(KEY)


@pytest.mark.parametrize("length", [0, 7, 50, -1])
def test_a_truncated_artifact_is_detected(store: ArtifactStore, length: int) -> None:
    store.put(KEY, TENSORS, FACTS)
    store.path(KEY).write_bytes(store.path(KEY).read_bytes()[:length])
    with pytest.raises(CorruptError, match=KEY):
        store.get(KEY)


def test_an_artifact_in_the_file_of_another_key_is_detected(store: ArtifactStore) -> None:
    store.put(KEY, TENSORS, FACTS)
    store.path(OTHER).parent.mkdir()
    store.path(KEY).rename(store.path(OTHER))
    with pytest.raises(CorruptError, match="another key"):
        store.get(OTHER)


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "ab/cd", "AB" * 8, "ab12-1", "zz" * 8])
def test_an_invalid_key_is_refused(store: ArtifactStore, key: str) -> None:
    with pytest.raises(CorruptError, match="does not have the form of an artifact's key"):
        store.path(key)


def test_the_error_for_a_required_artifact_that_cannot_be_read_contains_its_key(store: ArtifactStore) -> None:
    with pytest.raises(CorruptArtifactError, match="missing") as missing:
        store.require(KEY)
    store.put(KEY, TENSORS, FACTS)
    store.path(KEY).write_bytes(b"no artifact")
    with pytest.raises(CorruptArtifactError, match="not a readable artifact") as corrupt:
        store.require(KEY)
    assert missing.value.key == corrupt.value.key == KEY


def test_a_file_that_cannot_be_read_is_named_by_every_way_to_read_it(store: ArtifactStore) -> None:
    """A folder in the place of the file stands for a file without permission, because root may read every file."""
    store.path(KEY).mkdir(parents=True)
    for read in (store.get, store.require, store.verify, lambda key: store.tensor(key, "other")):
        with pytest.raises(MachineError, match=rf"{KEY}.safetensors: cannot be read \(Is a directory\); correct"):
            read(KEY)


def test_an_interrupted_write_leaves_no_artifact(store: ArtifactStore) -> None:
    def full_disk(key: object) -> None:
        assert key == KEY
        raise OSError("No space left on device")

    set_failpoint("writing_artifact", full_disk)
    try:
        with pytest.raises(OSError, match="No space"):
            store.put(KEY, TENSORS, FACTS)
    finally:
        set_failpoint("writing_artifact", None)
    assert not store.has(KEY)
    assert list(store) == []
    store.put(KEY, TENSORS, FACTS)
    assert list(store) == [KEY]


def test_quarantine_keeps_every_corrupt_file(store: ArtifactStore) -> None:
    for content in (b"one", b"two"):
        store.path(KEY).parent.mkdir(parents=True, exist_ok=True)
        store.path(KEY).write_bytes(content)
        assert store.quarantine(KEY).read_bytes() == content
    assert not store.has(KEY)
    assert len(list(store.folder.corrupt_files())) == 2


def test_a_claim_excludes_other_processes_and_ends_when_its_process_ends(store: ArtifactStore) -> None:
    code = (
        "import sys, time; from pathlib import Path; from orchestrator.base.output_folder import ArtifactFolder\n"
        "from orchestrator.records.artifact_store import ArtifactStore\n"
        "with ArtifactStore(ArtifactFolder(Path(sys.argv[1]))).claim(sys.argv[2]) as mine:\n"
        "    print(mine, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(store.folder.path), KEY], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with store.claim(KEY) as mine:
            assert not mine
        with store.claim(OTHER) as other:
            assert other
        holder.kill()
        holder.wait()
        with store.claim(KEY) as mine:
            assert mine


def test_every_machine_reads_the_artifacts_of_a_storage(stores: tuple[ArtifactStore, ArtifactStore]) -> None:
    one, other = stores
    made = one.put(KEY, WEIGHTS, FACTS)
    assert other.has(KEY)
    assert set(other) == {KEY}
    assert not other.path(KEY).exists()
    found = other.get(KEY)
    assert torch.equal(found.tensors["weight"], made.tensors["weight"])
    assert found.sha256 == made.sha256
    assert other.path(KEY).read_bytes() == one.path(KEY).read_bytes()
    other.path(KEY).unlink()
    assert torch.equal(other.tensor(KEY, "weight"), made.tensors["weight"])
    other.delete(KEY)
    assert not one.unfinished.has(KEY)
    assert one.path(KEY).exists()  # the folder caches what was written to the storage
    assert not other.has(KEY)


def test_a_corrupt_copy_is_replaced_and_a_corrupt_original_is_reported(
    stores: tuple[ArtifactStore, ArtifactStore], folder: Storage
) -> None:
    one, other = stores
    one.put(KEY, WEIGHTS, FACTS)
    sound = one.path(KEY).read_bytes()
    one.path(KEY).write_bytes(sound[:-1] + b"!")
    one.get(KEY)
    assert one.path(KEY).read_bytes() == sound
    name = f"store/{KEY[:2]}/{KEY}.safetensors"
    folder.write(name, sound[:-1] + b"!")
    one.get(KEY)
    with pytest.raises(CorruptError, match=r"its bytes do not match.*SHA-256"):
        one.verify(KEY)
    with pytest.raises(CorruptError, match="its bytes do not match"):
        other.get(KEY)
    aside = other.quarantine(KEY)
    assert aside.read_bytes() == sound[:-1] + b"!"
    assert not other.has(KEY)
    other.put(KEY, WEIGHTS, FACTS)
    assert folder.read(name) == sound


def test_an_lru_cache_stays_within_its_limit_and_loses_no_artifact(folder: Storage, tmp_path: Path) -> None:
    keys = [f"{number:032x}" for number in range(12)]
    size = opened(tmp_path / "measured").put(keys[0], WEIGHTS, FACTS).num_bytes
    cache = opened(tmp_path / "cache", folder, limit=4 * size)
    for key in keys:
        cache.put(key, WEIGHTS, FACTS)
        time.sleep(0.01)
        cache.get(keys[0])  # the most recently used artifact stays in the cache
    kept = [path.stem for path in cache.folder.files()]
    assert len(kept) <= 4
    assert keys[0] in kept
    assert set(cache) == set(keys)
    for key in keys:
        assert torch.equal(cache.get(key).tensors["weight"], WEIGHTS["weight"])


def test_a_cache_never_evicts_artifacts_that_are_not_in_the_storage(folder: Storage, tmp_path: Path) -> None:
    keys = [f"{number:032x}" for number in range(6)]
    for key in keys[:3]:
        opened(tmp_path / "cache").put(key, WEIGHTS, FACTS)
    cache = opened(tmp_path / "cache", folder, limit=1)
    for key in keys[3:]:
        cache.put(key, WEIGHTS, FACTS)
    assert {path.stem for path in cache.folder.files()} == set(keys[:3])
    cache.put(keys[0], WEIGHTS, FACTS)  # putting a local artifact again uploads it
    assert folder.has(f"{keys[0][:2]}/{keys[0]}.safetensors")


def test_upload_stores_artifacts_that_were_written_without_a_storage(folder: Storage, tmp_path: Path) -> None:
    opened(tmp_path / "here").put(KEY, WEIGHTS, FACTS)
    here = opened(tmp_path / "here", folder)
    here.put(OTHER, WEIGHTS, FACTS)
    assert here.upload() == 1
    assert here.upload() == 0
    assert set(opened(tmp_path / "there", folder)) == {KEY, OTHER}


@pytest.mark.parametrize("own_storage", [True, False])
def test_adopt_copies_an_artifact_that_exists_only_in_the_storage(
    folder: Storage, tmp_path: Path, own_storage: bool
) -> None:
    origin = opened(tmp_path / "origin", folder / "origin")
    origin.put(KEY, TENSORS, FACTS)
    origin.path(KEY).unlink()
    target = opened(tmp_path / "target", folder / "target" if own_storage else None)
    target.adopt(origin, KEY)
    assert torch.equal(target.get(KEY).tensors["other"], TENSORS["other"])
    target.path(KEY).unlink()
    assert target.has(KEY) == own_storage
    target.adopt(origin, OTHER)
    assert not target.has(OTHER)


@pytest.mark.parametrize("own_storage", [True, False])
def test_adopt_refuses_a_corrupt_artifact(folder: Storage, tmp_path: Path, own_storage: bool) -> None:
    origin = opened(tmp_path / "origin")
    target = opened(tmp_path / "target", folder if own_storage else None)
    origin.put(KEY, TENSORS, FACTS)
    blob = bytearray(origin.path(KEY).read_bytes())
    blob[-1] ^= 1
    origin.path(KEY).write_bytes(blob)
    with pytest.raises(CorruptError, match=str(origin.path(KEY))):
        target.adopt(origin, KEY)
    assert not target.has(KEY)
    origin.put(OTHER, WEIGHTS, FACTS)
    os.replace(origin.path(OTHER), origin.path(KEY))
    with pytest.raises(CorruptError, match="another key"):
        target.adopt(origin, KEY)
    assert not target.has(KEY)


def test_adopt_makes_a_hard_link_or_else_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin, linked, copied = (opened(tmp_path / name) for name in ("origin", "linked", "copied"))
    origin.put(KEY, TENSORS, FACTS)
    for _ in range(2):  # again, after an interruption
        linked.adopt(origin, KEY)
    assert linked.path(KEY).samefile(origin.path(KEY))

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    copied.adopt(origin, KEY)
    assert not copied.path(KEY).samefile(origin.path(KEY))
    assert copied.get(KEY).sha256 == origin.get(KEY).sha256


def test_files_that_are_no_artifacts_are_passed_over(folder: Storage, tmp_path: Path) -> None:
    """Dead links, and what editors, notebooks and file managers leave."""
    store = opened(tmp_path / "here")
    store.put(KEY, WEIGHTS, FACTS)
    inside = store.path(KEY).parent
    (inside / f"{OTHER}.safetensors").symlink_to("/nonexistent")
    for name in ("._ab.safetensors", "notes.safetensors", ".DS_Store"):
        (inside / name).write_text("something else")
    (inside / ".ipynb_checkpoints").mkdir()
    assert list(store) == [KEY]
    assert set(store.sizes(0.0)) == {KEY}
    assert opened(tmp_path / "here", folder).upload() == 1


def test_checkpoints_are_found_by_the_key_of_their_task(stores: tuple[ArtifactStore, ArtifactStore]) -> None:
    one, other = stores
    for number in (5, 40):
        one.put(f"{KEY}-{number:012}", WEIGHTS, FACTS)
    one.put(OTHER, WEIGHTS, FACTS)
    assert sorted(other.numbered(KEY)) == [f"{KEY}-{number:012}" for number in (5, 40)]
