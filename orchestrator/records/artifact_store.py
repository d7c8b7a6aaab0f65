"""Trained tasks and evaluations by content key, in files that carry their own checksum (see artifact_format)."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors
from filelock import FileLock, Timeout

from orchestrator.base import failpoints
from orchestrator.base.files import write_atomically
from orchestrator.base.output_folder import ArtifactFolder
from orchestrator.records.artifact_format import KEY, Artifact, CorruptArtifactError, Header, decode, encode, verify
from orchestrator.records.facts import Facts
from orchestrator.records.object_storage import Storage, StoredFile
from supsup_core.errors import CorruptError

if TYPE_CHECKING:
    from torch import Tensor


class ArtifactStore:
    """A folder of artifacts. Several processes and sweeps may use it at once.

    With a storage, `put` writes there first, and the folder is an LRU cache of the storage, which other machines use
    too.
    """

    def __init__(self, folder: ArtifactFolder, storage: Storage | None = None, limit: int | None = None) -> None:
        """storage: where the artifacts are kept for good. limit: the most bytes of them that the folder keeps then."""
        self.folder = folder
        self.storage = storage
        self._limit = limit if storage is not None else None
        self._unmeasured: int | None = None
        """Bytes written to the cache since its size was last measured; None: it never was."""

    @property
    def unfinished(self) -> ArtifactStore:
        """The checkpoints of tasks that are being trained."""
        return ArtifactStore(self.folder.unfinished, self.storage and self.storage / "unfinished", self._limit)

    def path(self, key: str) -> Path:
        """Where the artifact of a key is or would be. CorruptError for what is no key, such as a path leading out."""
        return self.folder.path / self._name(key)

    def _name(self, key: str) -> str:
        """The file of a key, relative to the store."""
        if not KEY.fullmatch(key):
            raise CorruptError(f"{self.folder.path}: {key!r} is not the key of an artifact")
        return self.folder.name(key)

    def has(self, key: str) -> bool:
        """Whether an artifact is there. Its bytes are verified when it is read."""
        return self.path(key).exists() or (self.storage is not None and self.storage.has(self._name(key)))

    def put(self, key: str, tensors: Mapping[str, Tensor], facts: Facts) -> Artifact:
        """Write an artifact, atomically and durably.

        Idempotent: an artifact that is there already, and sound, stays, for equal keys mean equal results.
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
        """Read and verify an artifact. CorruptError naming the file when its bytes are not those written;
        FileNotFoundError when there is none."""
        blob, header = self._read(key)
        return decode(key, blob, header, str(self.path(key)))

    def require(self, key: str) -> Artifact:
        """As `get`, but a missing artifact is reported like a corrupt one: CorruptArtifactError with its key."""
        try:
            return self.get(key)
        except FileNotFoundError as error:
            raise CorruptArtifactError(key, f"{self.path(key)}: missing") from error
        except CorruptError as error:
            raise CorruptArtifactError(key, str(error)) from error

    def verify(self, key: str) -> int:
        """Verify an artifact's bytes, here and in the storage, and return their number.

        CorruptError or FileNotFoundError otherwise. A bad copy here of a sound one there is replaced.
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
        """The verified bytes of an artifact and what they say of themselves. A bad copy of a sound one is replaced."""
        path = self.path(key)
        try:
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
        """Write an artifact's bytes to the folder."""
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
        """Delete the least recently used artifacts until the cache is within nine tenths of its limit."""
        cached = []
        stored = self._stored()
        for path in self.folder.files():
            with contextlib.suppress(FileNotFoundError):  # another process evicts too
                stat = path.stat()
                cached.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in cached)
        if total <= limit:
            return
        for _, size, path in sorted(cached):
            if total <= 0.9 * limit:
                return
            if path.stem in stored:
                path.unlink(missing_ok=True)
                total -= size

    def __iter__(self) -> Iterator[str]:
        """The keys of all artifacts there are, in no order."""
        found = {path.stem for path in self.folder.files()}
        if self.storage is not None:
            found |= set(self._stored())
        return (key for key in found if KEY.fullmatch(key))

    def _stored(self, below: str = "") -> dict[str, StoredFile]:
        """The artifacts in the storage, by key."""
        assert self.storage is not None
        found = {self.folder.key_of(name): file for name, file in self.storage.files(below).items()}
        return {key: file for key, file in found.items() if key is not None}

    def sizes(self, older_than: float) -> dict[str, int]:
        """The bytes of all artifacts by key, without those that were written to the storage less than so many seconds
        ago."""
        if self.storage is None:
            return {path.stem: path.stat().st_size for path in self.folder.files()}
        before = time.time() - older_than
        return {
            key: file.num_bytes for key, file in self._stored().items() if file.written is None or file.written < before
        }

    def numbered(self, key: str) -> list[str]:
        """The keys `KEY-NUMBER` there are for a key."""
        found = {path.stem for path in self.folder.numbered(key)}
        if self.storage is not None:
            found |= {other for other in self._stored(key[:2]) if other.startswith(f"{key}-")}
        return [other for other in found if KEY.fullmatch(other)]

    def upload(self) -> int:
        """Copy to the storage what is only here, as after the folder was used without one. Returns how many files."""
        if self.storage is None:
            return 0
        stored = self._stored()
        missing = [path for path in sorted(self.folder.files()) if path.stem not in stored]
        for path in missing:
            self.storage.write(self._name(path.stem), path.read_bytes())
        return len(missing)

    def tensor(self, key: str, name: str) -> Tensor:
        """One tensor of an artifact, without reading or verifying the rest; for tensors with a checksum of their own.

        CorruptError when it cannot be read, FileNotFoundError when there is no such artifact.
        """
        path = self.path(key)
        if not path.exists():
            if self.storage is None:
                raise FileNotFoundError(path)
            return self.get(key).tensors[name]
        try:
            with safetensors.safe_open(path, "pt") as file:
                found: Tensor = file.get_tensor(name)
                return found
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            if self.storage is not None:
                return self.get(key).tensors[name]
            raise CorruptError(f"{path}: not a readable artifact ({error})") from error

    def delete(self, key: str) -> None:
        """Remove an artifact here and in the storage, if it is there."""
        self.drop(key)
        self.forget([key])

    def drop(self, key: str) -> None:
        """Remove an artifact from the folder alone; the storage keeps it until `forget`."""
        self.path(key).unlink(missing_ok=True)

    def forget(self, keys: Iterable[str]) -> None:
        """Remove dropped artifacts from the storage, where there is one."""
        if self.storage is not None:
            for key in keys:
                self.storage.delete(self._name(key))

    def quarantine(self, key: str) -> Path:
        """Set a corrupt artifact aside, keeping it. Returns its new path."""
        name = self._name(key)
        aside = self.folder.corrupt_file(key)
        aside.parent.mkdir(parents=True, exist_ok=True)
        if self.storage is None:
            return self.path(key).rename(aside)
        write_atomically(aside, self.storage.read(name) if self.storage.has(name) else self.path(key).read_bytes())
        self.delete(key)
        return aside

    def adopt(self, other: ArtifactStore, key: str) -> None:
        """Link an artifact of another store into this one, or copy it where the file system has no hard links.

        Artifacts are never written to, so a link is safe. Nothing happens where the other store does not have it.
        """
        source, target = other.path(key), self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if not source.exists():
                other.verify(key)
            if self.storage is not None:
                self.storage.write(self._name(key), source.read_bytes())
            with contextlib.suppress(FileExistsError):
                try:
                    os.link(source, target)
                except (FileNotFoundError, FileExistsError):
                    raise
                except OSError:
                    shutil.copyfile(source, target)

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Try to be the only process that makes an artifact; yields False when another one is at it.

        The claim is the operating system's lock on a file, so it ends with its process. Look for the artifact after
        claiming it: another process may just have made it.
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
