"""The contract of a storage, tested on a file system and on an object store."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from orchestrator.records import object_storage
from orchestrator.records.object_storage import Storage, StorageError, check_url
from supsup_core.errors import InputError
from tests.object_store import ObjectStore


def test_files_that_were_written_are_read_and_listed(folder: Storage) -> None:
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


def test_a_moved_file_has_its_new_name_only(folder: Storage) -> None:
    folder.write("store/ab/x.bin", b"kept")
    folder.move("store/ab/x.bin", "trash/today/store/ab/x.bin")
    assert list(folder.files()) == ["trash/today/store/ab/x.bin"]
    assert folder.read("trash/today/store/ab/x.bin") == b"kept"
    folder.move("store/ab/missing.bin", "trash/missing.bin")
    assert list(folder.files()) == ["trash/today/store/ab/x.bin"]


def test_a_request_is_retried_if_the_storage_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "FIRST_WAIT_SECONDS", 0.01)
    folder = Storage(f"file://{tmp_path}", patience=0.3)
    folder.write("a", b"1")
    answers: list[Exception] = [ConnectionError("down"), TimeoutError("slow")]
    read = LocalFileSystem.cat_file

    def flaky(system: LocalFileSystem, path: str) -> bytes:
        if answers:
            raise answers.pop()
        found: bytes = read(system, path)
        return found

    monkeypatch.setattr(LocalFileSystem, "cat_file", flaky)
    assert folder.read("a") == b"1"
    assert not answers
    answers += [ConnectionError("down")] * 10_000
    with pytest.raises(StorageError, match="reading a failed for 0 s"):
        folder.read("a")
    answers[:] = [PermissionError("Forbidden")]
    with pytest.raises(StorageError, match=r"was refused.*credentials"):
        folder.read("a")
    assert not answers


def test_wrong_access_keys_are_not_retried(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_url_that_does_not_name_a_folder_is_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"^storage: "):
        check_url(url)
