"""Trained artifacts and evaluations by content key, in files that vouch for themselves.

An artifact is a safetensors file with one metadata entry, a JSON text. That text holds the SHA-256 of
the whole file, taken with the 64 digits of the hash itself as zeros, so a single flipped byte anywhere
is found out, and a plain safetensors reader can still open the file. Equal content gives equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
from filelock import FileLock, Timeout

from orchestrator.base.files import write_atomically
from orchestrator.base.keys import canonical
from orchestrator.records.object_storage import Storage
from supsup_core.errors import CorruptError

if TYPE_CHECKING:
    from torch import Tensor

_ENTRY = "supsup"
_BLANK = b"0" * 64
_KEY = re.compile(r"[0-9a-f]{8,64}(-[0-9]{12,})?")
_MARK = b'\\"sha256\\":\\"'


class CorruptArtifactError(CorruptError):
    """An artifact that is needed is missing or corrupt; `key` says which."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


@dataclass(frozen=True)
class Artifact:
    """One stored result. `num_bytes` is the size of its file."""

    key: str
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    sha256: str
    num_bytes: int


class ArtifactStore:
    """A folder of artifacts. Several processes and sweeps may use it at once.

    With a storage, what is put is safe there first, and the folder is a cache of it, which other machines have too.
    """

    def __init__(self, root: Path, storage: Storage | None = None, limit: int | None = None) -> None:
        """storage: where the artifacts really are. limit: the most bytes of them that are kept in `root` then; those
        that were not used for longest go first."""
        self.root = root
        self._storage = storage
        self._limit = limit if storage is not None else None
        self._unseen: int | None = None
        """Bytes written to the cache since it was last measured; None: never."""

    def child(self, name: str) -> ArtifactStore:
        """A store in a folder within this one."""
        return ArtifactStore(self.root / name, self._storage and self._storage / name, self._limit)

    def path(self, key: str) -> Path:
        """Where the artifact of a key is or would be. CorruptError for what is no key, such as a path leading out."""
        return self.root / _name(key, self.root)

    def has(self, key: str) -> bool:
        """Whether an artifact is there; its bytes are verified when it is read."""
        return self.path(key).exists() or (self._storage is not None and self._storage.has(_name(key, self.root)))

    def put(self, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Artifact:
        """Write an artifact, atomically and durably; `facts` are plain JSON values.

        One that is there already, and sound, stays: equal keys mean equal results.
        """
        from safetensors.torch import save  # it loads torch, which a plan does without

        if self.has(key):
            with contextlib.suppress(CorruptError):
                found = self.get(key)
                if self._storage is not None and not self._storage.has(_name(key, self.root)):
                    self._storage.write(_name(key, self.root), self.path(key).read_bytes())
                return found
        entry = canonical({"facts": dict(facts), "key": key, "sha256": _BLANK.decode()})
        blob = save({name: t.contiguous() for name, t in tensors.items()}, {_ENTRY: entry})
        digest = hashlib.sha256(blob).hexdigest()
        (length,) = struct.unpack_from("<Q", blob)
        at = blob.rindex(_MARK + _BLANK, 8, 8 + length) + len(_MARK)
        blob = blob[:at] + digest.encode() + blob[at + 64 :]
        if self._storage is not None:
            self._storage.write(_name(key, self.root), blob)
        self._keep(key, blob)
        return Artifact(key, dict(tensors), dict(facts), digest, len(blob))

    def get(self, key: str) -> Artifact:
        """Read and verify an artifact; CorruptError naming the file when its bytes are not those written."""
        from safetensors.torch import load

        blob, entry, digest = self._read(key)
        try:
            return Artifact(key, load(blob), entry["facts"], digest, len(blob))
        except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
            raise CorruptError(f"{self.path(key)}: not a readable artifact ({error})") from error

    def verify(self, key: str) -> int:
        """The size in bytes of an artifact whose bytes are those written, here and in the storage; else CorruptError,
        or FileNotFoundError. A bad copy here of a sound one there is replaced."""
        if self._storage is not None:
            name = _name(key, self.root)
            stored = self._storage.read(name)
            _verified(stored, key, f"{self._storage.url}/{name}")
            if not self.path(key).exists():
                return len(stored)
        blob, _, _ = self._read(key)
        return len(blob)

    def _read(self, key: str) -> tuple[bytes, dict[str, Any], str]:
        """The verified bytes of an artifact, its metadata, and its SHA-256; a bad copy of a sound one is replaced."""
        path = self.path(key)
        try:
            blob = path.read_bytes()
            found = (blob, *_verified(blob, key, str(path)))
        except (FileNotFoundError, CorruptError):
            if self._storage is None:
                raise
            name = _name(key, self.root)
            blob = self._storage.read(name)
            found = (blob, *_verified(blob, key, f"{self._storage.url}/{name}"))
            self._keep(key, blob)
        else:
            if self._limit is not None:
                with contextlib.suppress(OSError):
                    os.utime(path)
        return found

    def _keep(self, key: str, blob: bytes) -> None:
        """Write an artifact's bytes to the folder."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, blob)
        if self._limit is None:
            return
        self._unseen = None if self._unseen is None else self._unseen + len(blob)
        if self._unseen is None or self._unseen > self._limit // 20:
            self._make_room(self._limit)
            self._unseen = 0

    def _make_room(self, limit: int) -> None:
        """Delete what was not used for longest, until the cache is within nine tenths of its limit."""
        kept = []
        stored = self._stored()
        for path in self.root.glob("??/*.safetensors"):
            with contextlib.suppress(FileNotFoundError):  # another process makes room too
                stat = path.stat()
                kept.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in kept)
        if total <= limit:
            return
        for _, size, path in sorted(kept):
            if total <= 0.9 * limit:
                return
            if path.stem in stored:
                path.unlink(missing_ok=True)
                total -= size

    def __iter__(self) -> Iterator[str]:
        """The keys of all artifacts there are, in no order."""
        found = {path.stem for path in self.root.glob("??/*.safetensors")}
        if self._storage is not None:
            found |= set(self._stored())
        return (key for key in found if _KEY.fullmatch(key))

    def _stored(self, below: str = "") -> dict[str, tuple[int, float | None]]:
        """The artifacts in the storage by key: their bytes, and when each was written."""
        assert self._storage is not None
        found = {Path(name): facts for name, facts in self._storage.files(below).items()}
        return {
            path.stem: facts for path, facts in found.items() if path.match("??/*.safetensors") and len(path.parts) == 2
        }

    def sizes(self, older_than: float) -> dict[str, int]:
        """The bytes of all artifacts, by key, but for those that were written to the storage less than so many seconds
        ago."""
        found = {path.stem: path.stat().st_size for path in self.root.glob("??/*.safetensors")}
        if self._storage is None:
            return found
        before = time.time() - older_than
        return {key: size for key, (size, written) in self._stored().items() if written is None or written < before}

    def beginning(self, key: str) -> list[str]:
        """The keys `KEY-NUMBER` that begin with a key."""
        found = {path.stem for path in self.path(key).parent.glob(f"{key}-*.safetensors")}
        if self._storage is not None:
            found |= {other for other in self._stored(key[:2]) if other.startswith(f"{key}-")}
        return [other for other in found if _KEY.fullmatch(other)]

    def upload(self) -> int:
        """Have in the storage what is only here, as after the folder was used without; how many files that were."""
        if self._storage is None:
            return 0
        there = self._stored()
        missing = [path for path in sorted(self.root.glob("??/*.safetensors")) if path.stem not in there]
        for path in missing:
            self._storage.write(_name(path.stem, self.root), path.read_bytes())
        return len(missing)

    def require(self, key: str) -> Artifact:
        """`get`, with a missing file told like a corrupt one: CorruptArtifactError with its key."""
        try:
            return self.get(key)
        except FileNotFoundError as error:
            raise CorruptArtifactError(key, f"{self.path(key)}: missing") from error
        except CorruptError as error:
            raise CorruptArtifactError(key, str(error)) from error

    def tensor(self, key: str, name: str) -> Tensor:
        """One tensor of an artifact, without reading or verifying the rest; for tensors that vouch for themselves.

        CorruptError when it cannot be read, FileNotFoundError when there is no such artifact.
        """
        path = self.path(key)
        if not path.exists():
            if self._storage is None:
                raise FileNotFoundError(path)
            return self.get(key).tensors[name]
        try:
            with safetensors.safe_open(path, "pt") as file:
                found: Tensor = file.get_tensor(name)
                return found
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            if self._storage is not None:
                return self.get(key).tensors[name]
            raise CorruptError(f"{path}: not a readable artifact ({error})") from error

    def delete(self, key: str) -> None:
        """Remove an artifact that is no longer needed, if it is there."""
        self.drop(key)
        self.forget([key])

    def drop(self, key: str) -> None:
        """Remove an artifact from the folder alone; what is in the storage stays there until `forget`."""
        self.path(key).unlink(missing_ok=True)

    def forget(self, keys: Iterable[str]) -> None:
        """Remove from the storage, where there is one, what was dropped."""
        if self._storage is not None:
            for key in keys:
                self._storage.delete(_name(key, self.root))

    def quarantine(self, key: str) -> Path:
        """Move a bad artifact out of the way, keeping it; returns where it is now."""
        folder = self.root / "corrupt"
        folder.mkdir(parents=True, exist_ok=True)
        number = sum(1 for _ in folder.glob(f"{key}.*"))
        aside = folder / f"{key}.{number}.safetensors"
        if self._storage is None:
            return self.path(key).rename(aside)
        name = _name(key, self.root)
        write_atomically(aside, self._storage.read(name) if self._storage.has(name) else self.path(key).read_bytes())
        self.delete(key)
        return aside

    def adopt(self, other: ArtifactStore, key: str) -> None:
        """Have an artifact of another store here too, without a second copy where the file system can: they are never
        written to. Nothing happens where the other does not have it."""
        source, target = other.path(key), self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if not source.exists():
                other.verify(key)
            if self._storage is not None:
                self._storage.write(_name(key, self.root), source.read_bytes())
            with contextlib.suppress(FileExistsError):
                try:
                    os.link(source, target)
                except (FileNotFoundError, FileExistsError):
                    raise
                except OSError:
                    shutil.copyfile(source, target)

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Try to be the only one to make an artifact; yields False when another process is at it.

        The claim is the operating system's lock on a file, so it ends with its process. Look whether the
        artifact is there after claiming it: another process may just have made it.
        """
        folder = self.root / "claims"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{key}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def stores_of(settings: dict[str, Any]) -> tuple[ArtifactStore, ArtifactStore]:
    """The store of trained tasks and evaluations, and the one of the versions of an NNs group's masks, as a sweep's
    settings tell them to its processes."""
    places = settings["storage"] or {}
    limit = places.get("cache_bytes")
    store, versions = (
        ArtifactStore(Path(settings[name]), Storage(places[name]) if places else None, limit)
        for name in ("store", "versions")
    )
    return store, versions


def _name(key: str, root: Path) -> str:
    """The file of a key, relative to its store; CorruptError for what is no key, such as a path leading out."""
    if not _KEY.fullmatch(key):
        raise CorruptError(f"{root}: {key!r} is not the key of an artifact")
    return f"{key[:2]}/{key}.safetensors"


def _verified(blob: bytes, key: str, where: str) -> tuple[dict[str, Any], str]:
    """The metadata and the SHA-256 of an artifact's bytes; CorruptError unless they are those written for its key."""
    try:
        (length,) = struct.unpack_from("<Q", blob)
        header = blob[8 : 8 + length]
        at = 8 + header.rindex(_MARK) + len(_MARK)
        claimed = blob[at : at + 64]
        hashed = hashlib.sha256(memoryview(blob)[:at])
        hashed.update(_BLANK)
        hashed.update(memoryview(blob)[at + 64 :])
        digest = hashed.hexdigest()
        if digest.encode() != claimed:
            raise CorruptError(f"{where}: its bytes do not match its SHA-256")
        entry: dict[str, Any] = json.loads(json.loads(header)["__metadata__"][_ENTRY])
        if entry["key"] != key:
            raise CorruptError(f"{where}: holds the artifact of another key, {entry['key']}")
        return entry, digest
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise CorruptError(f"{where}: not a readable artifact ({error})") from error
