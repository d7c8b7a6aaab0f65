"""The contract of a storage, over a file system and over an object store, and of artifacts that are kept in one."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.records import object_storage as module
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.learned_tensors import read_mask
from orchestrator.records.ledger import FencedError, LedgerWriter, copy_of, epoch_of
from orchestrator.records.ledger_snapshots import Copier, Snapshots, is_newer
from orchestrator.records.object_storage import Storage, StorageError, check_url
from supsup_core.errors import CorruptError, InputError
from supsup_core.masks import codec
from tests.object_store import ObjectStore

KEY, OTHER = "ab" * 16, "cd" * 16


@pytest.fixture(params=["file", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """An empty folder of each kind of storage."""
    if request.param == "file":
        return Storage(f"file://{tmp_path}/stored", patience=5.0)
    server: ObjectStore = request.getfixturevalue("object_store")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return Storage(f"s3://tests/{tmp_path.name}-{time.time_ns()}", patience=20.0)


@pytest.fixture
def stores(folder: Storage, tmp_path: Path) -> tuple[ArtifactStore, ArtifactStore]:
    """The artifacts of one storage, as two machines see them."""
    return ArtifactStore(tmp_path / "one", folder / "store"), ArtifactStore(tmp_path / "other", folder / "store")


def tensors(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((50,), value)}


def test_what_is_written_is_read(folder: Storage) -> None:
    folder.write("a/b.txt", b"first")
    folder.write("a/b.txt", b"second")
    folder.write("c.txt", b"")
    assert folder.read("a/b.txt") == b"second"
    assert folder.has("a/b.txt")
    assert not folder.has("a/c.txt")
    assert not folder.has("a")
    assert {name: size for name, (size, _) in folder.files().items()} == {"a/b.txt": 6, "c.txt": 0}
    assert list(folder.files("a")) == ["a/b.txt"]
    assert (folder / "a").read("b.txt") == b"second"
    assert (folder / "nothing").files() == {}
    ((_, written),) = folder.files("a").values()
    assert written is not None
    assert abs(written - time.time()) < 60
    folder.delete("a/b.txt")
    folder.delete("a/b.txt")
    assert not folder.has("a/b.txt")
    with pytest.raises(FileNotFoundError):
        folder.read("a/b.txt")


def test_artifacts_are_had_on_every_machine(stores: tuple[ArtifactStore, ArtifactStore]) -> None:
    one, other = stores
    made = one.put(KEY, tensors(), {"task": 3})
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
    assert not one.child("elsewhere").has(KEY)
    assert one.path(KEY).exists()  # a cache: what it holds is what was written
    assert not other.has(KEY)


def test_a_bad_copy_is_replaced_and_a_bad_original_is_told(
    stores: tuple[ArtifactStore, ArtifactStore], folder: Storage
) -> None:
    one, other = stores
    one.put(KEY, tensors(), {})
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
    other.put(KEY, tensors(), {})
    assert folder.read(name) == sound


def test_a_cache_stays_within_its_limit_and_loses_nothing(folder: Storage, tmp_path: Path) -> None:
    keys = [f"{number:032x}" for number in range(12)]
    size = ArtifactStore(tmp_path / "measured").put(keys[0], tensors(), {}).num_bytes
    cache = ArtifactStore(tmp_path / "cache", folder, limit=4 * size)
    for key in keys:
        cache.put(key, tensors(), {})
        time.sleep(0.01)
        cache.get(keys[0])  # the one that is used most stays
    kept = [path.stem for path in (tmp_path / "cache").glob("??/*.safetensors")]
    assert len(kept) <= 4
    assert keys[0] in kept
    assert set(cache) == set(keys)
    for key in keys:
        assert torch.equal(cache.get(key).tensors["weight"], tensors()["weight"])


def test_what_was_made_without_a_storage_goes_there(folder: Storage, tmp_path: Path) -> None:
    ArtifactStore(tmp_path / "here").put(KEY, tensors(), {})
    here = ArtifactStore(tmp_path / "here", folder)
    here.put(OTHER, tensors(), {})
    assert here.upload() == 1
    assert here.upload() == 0
    assert set(ArtifactStore(tmp_path / "there", folder)) == {KEY, OTHER}


def test_states_of_unfinished_tasks_are_found_by_their_beginning(stores: tuple[ArtifactStore, ArtifactStore]) -> None:
    one, other = stores
    for number in (5, 40):
        one.put(f"{KEY}-{number:012}", tensors(), {})
    one.put(OTHER, tensors(), {})
    assert sorted(other.beginning(KEY)) == [f"{KEY}-{number:012}" for number in (5, 40)]


def test_a_writer_that_was_replaced_is_told(folder: Storage, tmp_path: Path) -> None:
    snapshots = Snapshots(folder)
    snapshots.put((3, "aaaaaaaa"), b"three")
    snapshots.put((3, "aaaaaaaa"), b"three again")
    snapshots.put((4, "bbbbbbbb"), b"four")
    with pytest.raises(FencedError, match="another process has gone on"):
        snapshots.put((3, "aaaaaaaa"), b"late")
    snapshots.put((6, "aaaaaaaa"), b"six")
    assert snapshots.versions() == [(6, "aaaaaaaa"), (4, "bbbbbbbb")]  # the one before is kept
    assert folder.read("ledger-00000004-bbbbbbbb.sqlite") == b"four"
    assert list(snapshots.sound()) == []  # those are no ledgers
    copier = Copier(snapshots, ArtifactStore(tmp_path / "masks", folder / "masks"))
    copier.start((5, "cccccccc"), b"five", [])
    copier.wait()
    with pytest.raises(FencedError):
        _ = copier.busy


def test_masks_are_forgotten_only_once_a_newer_snapshot_is_safe(folder: Storage, tmp_path: Path) -> None:
    masks = ArtifactStore(tmp_path / "masks", folder / "masks")
    masks.put(KEY, tensors(), {})
    masks.drop(KEY)
    assert masks.has(KEY)
    copier = Copier(Snapshots(folder), masks)
    copier.start((1, "aaaaaaaa"), b"one", [KEY])
    copier.wait()
    assert not copier.busy
    assert not masks.has(KEY)
    copier.close()


@pytest.mark.parametrize(
    ("stored", "here", "newer"),
    [
        ([], (3, "a"), False),
        ([(4, "b")], (3, "a"), True),
        ([(3, "a")], (3, "a"), False),
        ([(3, "b"), (2, "a")], (3, "a"), True),  # here is a copy of what was written there
        ([(3, "a")], (3, "b"), True),
        ([(3, "b")], (4, "a"), False),
    ],
)
def test_what_was_written_elsewhere_since_is_newer(
    stored: list[tuple[int, str]], here: tuple[int, str], newer: bool
) -> None:
    assert is_newer(stored, here) is newer


def test_a_mask_whose_copy_is_bad_is_had_from_the_storage(stores: tuple[ArtifactStore, ArtifactStore]) -> None:
    one, other = stores
    packed = codec.pack(np.random.default_rng(0).random(200) < 0.5)
    blob = torch.from_numpy(np.frombuffer(codec.encode(packed, 200, [200]), np.uint8).copy())
    one.put(KEY, {"state.mask": blob}, {})
    path = one.path(KEY)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # within the mask
    path.write_bytes(content)
    assert torch.equal(read_mask(one, KEY), blob)
    path.write_bytes(b"no artifact at all")
    assert torch.equal(read_mask(one, KEY), blob)
    assert torch.equal(read_mask(other, KEY), blob)


def test_a_cache_keeps_what_is_nowhere_else(folder: Storage, tmp_path: Path) -> None:
    keys = [f"{number:032x}" for number in range(6)]
    for key in keys[:3]:
        ArtifactStore(tmp_path / "cache").put(key, tensors(), {})
    cache = ArtifactStore(tmp_path / "cache", folder, limit=1)
    for key in keys[3:]:
        cache.put(key, tensors(), {})
    assert {path.stem for path in (tmp_path / "cache").glob("??/*.safetensors")} == set(keys[:3])
    cache.put(keys[0], tensors(), {})  # it is here, and so was not trained again; now it is stored as well
    assert folder.has(f"{keys[0][:2]}/{keys[0]}.safetensors")


def test_an_epoch_is_above_those_that_are_known(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    assert epoch_of(path) == 0
    LedgerWriter(path, above=7).close()
    writer = LedgerWriter(path)
    writer.append("plan", group={})
    assert writer.epoch == epoch_of(path) == 9
    (tmp_path / "copy.sqlite").write_bytes(copy_of(path))
    assert epoch_of(tmp_path / "copy.sqlite") == 9
    writer.close()


def test_one_that_does_not_answer_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT", 0.01)
    folder = Storage(f"file://{tmp_path}", patience=0.3)
    folder.write("a", b"1")
    answers: list[Exception] = [ConnectionError("down"), TimeoutError("slow")]
    asked = folder._system.cat_file

    def flaky(path: str) -> bytes:
        if answers:
            raise answers.pop()
        found: bytes = asked(path)
        return found

    monkeypatch.setattr(folder._system, "cat_file", flaky)
    assert folder.read("a") == b"1"
    assert not answers
    answers += [ConnectionError("down")] * 10_000
    with pytest.raises(StorageError, match="reading a failed for 0 s"):
        folder.read("a")
    answers[:] = [PermissionError("Forbidden")]
    with pytest.raises(StorageError, match=r"was refused.*credentials"):
        folder.read("a")
    assert not answers


def test_wrong_keys_are_refused_at_once(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**object_store.environment, "AWS_SECRET_ACCESS_KEY": "another"}.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    started = time.monotonic()
    with pytest.raises(InputError, match="was refused"):
        Storage("s3://tests/refused").check()
    assert time.monotonic() - started < 10
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    "url",
    [
        "", "runs", "/absolute", "s3:bucket", "s3://", "http://host/x", "file://host/x", "file://", "s3://k:s@bucket/x",
        "s3://bucket/../other", "s3://bucket/x?y=1", "s3://[bucket/x", "ftp://h/x", "file:///a/./b",
    ],
)  # fmt: skip
def test_what_is_no_folder_is_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"^storage: "):
        check_url(url)
