"""Stores artifacts as files, named by content key. Each file contains its own checksum (see artifact_format)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors
from filelock import FileLock, Timeout

from orchestrator.base import failpoints
from orchestrator.base.files import readable, write_atomically
from orchestrator.base.output_folder import ArtifactFolder
from orchestrator.records.artifact_format import (
    KEY,
    Artifact,
    CorruptArtifactError,
    Header,
    check_key,
    decode,
    encode,
    verify,
)
from orchestrator.records.facts import Facts, facts_from_node
from orchestrator.records.object_storage import Storage, StoredFile
from supsup_core.errors import CorruptError

if TYPE_CHECKING:
    from torch import Tensor


class ArtifactStore:
    """A folder of artifacts. Several processes and sweeps may use the folder at once.

    With a storage, the folder is an LRU cache of the storage: `put` writes to the storage first, then to the folder.
    Other machines may use the same storage.
    """

    def __init__(self, folder: ArtifactFolder, storage: Storage | None = None, limit: int | None = None) -> None:
        """storage: stores all artifacts permanently; None means that the folder stores them permanently.

        limit: the maximum size of the LRU cache in bytes; None means no limit. Without a storage, `limit` is ignored.
        """
        self.folder = folder
        self.storage = storage
        self._limit = limit if storage is not None else None
        self._unmeasured: int | None = None
        """The number of bytes written to the cache since its size was last measured; None if it was never measured."""

    @property
    def unfinished(self) -> ArtifactStore:
        """The store that holds the checkpoints of tasks in training."""
        return ArtifactStore(self.folder.unfinished, self.storage and self.storage / "unfinished", self._limit)

    def path(self, key: str) -> Path:
        """Returns the path of a key's artifact, whether or not the file exists.

        Raises CorruptError if `key` does not have the form of a key, for example if it contains `../`.
        """
        return self.folder.path / self._name(key)

    def _name(self, key: str) -> str:
        """Returns an artifact's file name relative to the folder. Raises CorruptError if `key` is not a valid key."""
        if not KEY.fullmatch(key):
            raise CorruptError(f"{self.folder.path}: {key!r} does not have the form of an artifact's key")
        return self.folder.name(key)

    def has(self, key: str) -> bool:
        """Returns whether the folder or the storage has an artifact. Does not verify the bytes, unlike `get`."""
        return self.path(key).exists() or (self.storage is not None and self.storage.has(self._name(key)))

    def put(self, key: str, tensors: Mapping[str, Tensor], facts: Facts) -> Artifact:
        """Writes an artifact atomically and durably, and returns it.

        The method is idempotent: it keeps and returns an intact artifact that is already stored under this key, because
        equal keys mean equal results.
        """
        if self.has(key):
            with contextlib.suppress(CorruptError):
                found = self.get(key)
                if self.storage is not None and not self.storage.has(self._name(key)):
                    self.storage.write(self._name(key), self.path(key).read_bytes())
                return found
        blob, digest = encode(key, tensors, facts)
        if self.storage is not None:
            self.storage.write(self._name(key), blob)
        self._cache(key, blob)
        return Artifact(key, dict(tensors), facts, digest, len(blob))

    def get(self, key: str) -> Artifact:
        """Reads and verifies an artifact.

        Raises CorruptError, which names the file, if the checksum is wrong. Raises FileNotFoundError if the artifact
        does not exist.
        """
        blob, header = self._read(key)
        return decode(key, blob, header, str(self.path(key)))

    def require(self, key: str) -> Artifact:
        """Reads and verifies an artifact.

        Raises CorruptArtifactError, with the key, if the artifact is missing or corrupt.
        """
        try:
            return self.get(key)
        except FileNotFoundError as error:
            raise CorruptArtifactError(key, f"{self.path(key)}: missing") from error
        except CorruptError as error:
            raise CorruptArtifactError(key, str(error)) from error

    def verify(self, key: str) -> int:
        """Verifies the copies of an artifact in the folder and in the storage. Returns the artifact's size in bytes.

        A corrupt copy in the folder is replaced by the intact copy from the storage. Raises CorruptError if the copy in
        the storage is corrupt, and FileNotFoundError if that copy is missing. If there is no storage, raises
        CorruptError or FileNotFoundError for the copy in the folder.
        """
        if self.storage is not None:
            name = self._name(key)
            stored = self.storage.read(name)
            verify(key, stored, f"{self.storage.url}/{name}")
            if not self.path(key).exists():
                return len(stored)
        blob, _ = self._read(key)
        return len(blob)

    def _read(self, key: str) -> tuple[bytes, Header]:
        """Returns the verified bytes of an artifact and their header.

        Replaces a missing or corrupt copy in the folder by the storage's copy. Raises CorruptError or FileNotFoundError
        if no intact copy exists, and MachineError if the file cannot be read.
        """
        path = self.path(key)
        try:
            with readable(path):
                blob = path.read_bytes()
            header = verify(key, blob, str(path))
        except (FileNotFoundError, CorruptError):
            if self.storage is None:
                raise
            name = self._name(key)
            blob = self.storage.read(name)
            header = verify(key, blob, f"{self.storage.url}/{name}")
            self._cache(key, blob)
        else:
            if self._limit is not None:
                with contextlib.suppress(OSError):
                    os.utime(path)
        return blob, header

    def _cache(self, key: str, blob: bytes) -> None:
        """Writes an artifact's bytes to the folder. Evicts other artifacts if the cache may then exceed its limit."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        failpoints.reach("writing_artifact", key)
        write_atomically(path, blob)
        if self._limit is None:
            return
        self._unmeasured = None if self._unmeasured is None else self._unmeasured + len(blob)
        if self._unmeasured is None or self._unmeasured > self._limit // 20:
            self._evict(self._limit)
            self._unmeasured = 0

    def _evict(self, limit: int) -> None:
        """Deletes the least recently used artifacts until the cache holds at most 0.9 * `limit` bytes.

        Does nothing if the cache holds at most `limit` bytes. Never deletes an artifact that the storage lacks.
        """
        cached = []
        for entry in self._entries().values():
            with contextlib.suppress(FileNotFoundError):  # another process may have evicted the file
                stat = entry.stat()
                cached.append((stat.st_mtime, stat.st_size, Path(entry.path)))
        total = sum(size for _, size, _ in cached)
        if total <= limit:
            return
        stored = self._stored()
        for _, size, path in sorted(cached):
            if total <= 0.9 * limit:
                return
            if path.stem in stored:
                path.unlink(missing_ok=True)
                total -= size

    def __iter__(self) -> Iterator[str]:
        """Iterates over the keys of all artifacts in the folder and the storage, in no particular order."""
        found = set(self._entries())
        if self.storage is not None:
            found |= {key for key in self._stored() if KEY.fullmatch(key)}
        return iter(found)

    def _entries(self) -> dict[str, os.DirEntry[str]]:
        """Returns the directory entries of the artifacts' files in the folder, by key. Skips other files."""
        return {key: entry for key, entry in self.folder.entries().items() if KEY.fullmatch(key)}

    def _stored(self, below: str = "") -> dict[str, StoredFile]:
        """Returns the artifacts in the storage, by key. below: the subfolder to list; "" means the whole storage."""
        assert self.storage is not None
        found = {self.folder.key_of(name): file for name, file in self.storage.files(below).items()}
        return {key: file for key, file in found.items() if key is not None}

    def sizes(self, older_than: float) -> dict[str, int]:
        """Returns the sizes in bytes of all artifacts, by key.

        older_than: with a storage, artifacts written less than this many seconds ago are left out.
        """
        if self.storage is None:
            return {key: entry.stat().st_size for key, entry in self._entries().items()}
        before = time.time() - older_than
        return {
            key: file.num_bytes for key, file in self._stored().items() if file.written is None or file.written < before
        }

    def numbered(self, key: str) -> list[str]:
        """Returns the keys of a training job's checkpoints, in no particular order.

        The key of a checkpoint is `KEY-NUMBER`.
        """
        found = {path.stem for path in self.folder.numbered(key)}
        if self.storage is not None:
            found |= {other for other in self._stored(key[:2]) if other.startswith(f"{key}-")}
        return [other for other in found if KEY.fullmatch(other)]

    def upload(self) -> int:
        """Copies to the storage all artifacts that exist only in the folder. Returns the number of copied files.

        Artifacts exist only in the folder if an earlier launch used the folder without a storage.
        """
        if self.storage is None:
            return 0
        stored = self._stored()
        missing = [key for key in sorted(self._entries()) if key not in stored]
        for key in missing:
            self.storage.write(self._name(key), self.path(key).read_bytes())
        return len(missing)

    def tensor(self, key: str, name: str) -> Tensor:
        """Returns one tensor of an artifact. See `tensor_and_facts`."""
        return self.tensor_and_facts(key, name)[0]

    def tensor_and_facts(self, key: str, name: str) -> tuple[Tensor, Facts]:
        """Returns one tensor of an artifact, and the artifact's facts, without verifying the artifact's checksum.

        Use this method only for tensors that contain a checksum, such as encoded masks. Raises CorruptError if the
        tensor cannot be read or if the file holds the artifact of another key, and FileNotFoundError if the artifact
        does not exist.
        """
        path = self.path(key)
        try:
            with safetensors.safe_open(path, "pt") as file:
                entry = check_key(key, file.metadata(), str(path))
                return file.get_tensor(name), facts_from_node(entry["facts"])
        except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError, CorruptError) as error:
            if self.storage is not None:
                return self._verified_tensor(key, name)
            if isinstance(error, OSError):  # safetensors says that a file without permission is missing
                with readable(path):
                    path.open("rb").close()
            if isinstance(error, CorruptError):
                raise
            raise CorruptError(f"{path}: not a readable artifact ({error})") from error

    def _verified_tensor(self, key: str, name: str) -> tuple[Tensor, Facts]:
        found = self.get(key)
        return found.tensors[name], found.facts

    def delete(self, key: str) -> None:
        """Deletes an artifact from the folder and from the storage, if it exists."""
        self.drop(key)
        self.forget([key])

    def drop(self, key: str) -> None:
        """Deletes an artifact from the folder only. The storage keeps the artifact until `forget` is called."""
        self.path(key).unlink(missing_ok=True)

    def forget(self, keys: Iterable[str]) -> None:
        """Deletes artifacts from the storage, but not from the folder (see `drop`). Does nothing without a storage."""
        if self.storage is not None:
            for key in keys:
                self.storage.delete(self._name(key))

    def quarantine(self, key: str) -> Path:
        """Moves a corrupt artifact to the subfolder `corrupt`, and returns the new path. Deletes the storage's copy."""
        name = self._name(key)
        aside = self.folder.corrupt_file(key)
        aside.parent.mkdir(parents=True, exist_ok=True)
        if self.storage is None:
            return self.path(key).rename(aside)
        write_atomically(aside, self.storage.read(name) if self.storage.has(name) else self.path(key).read_bytes())
        self.delete(key)
        return aside

    def adopt(self, other: ArtifactStore, key: str) -> None:
        """Adds an artifact of another store to this store by a hard link, or by a copy if hard links are not supported.

        Verifies the artifact first. A hard link is safe, because artifacts are never modified in place. Raises
        CorruptError if the other store has no intact copy. Does nothing if the other store lacks the artifact.
        """
        try:
            blob, _ = other._read(key)
        except FileNotFoundError:
            return
        if self.storage is not None:
            self.storage.write(self._name(key), blob)
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(other.path(key), target)
        except FileExistsError:
            pass  # an earlier call, which was interrupted, has created the link
        except OSError:  # another file system, or the other cache has evicted the artifact
            self._cache(key, blob)

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Tries to claim an artifact, so that only one process computes it. Yields whether the claim succeeded.

        The claim is an operating system lock on a file, so it is released when the process ends. After a successful
        claim, check whether the artifact exists: another process may just have stored it.
        """
        file = self.folder.claim_file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            file.unlink(missing_ok=True)
            lock.release()
