"""Trained artifacts and evaluations by content key, in files that vouch for themselves.

An artifact is a safetensors file with one metadata entry, a JSON text. That text holds the SHA-256 of
the whole file, taken with the 64 digits of the hash itself as zeros, so a single flipped byte anywhere
is found out, and a plain safetensors reader can still open the file. Equal content gives equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
from filelock import FileLock, Timeout

from orchestrator.files import write_atomically
from orchestrator.keys import canonical
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
    """A folder of artifacts. Several processes and sweeps may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """Where the artifact of a key is or would be. CorruptError for what is no key, such as a path leading out."""
        if not _KEY.fullmatch(key):
            raise CorruptError(f"{self.root}: {key!r} is not the key of an artifact")
        return self.root / key[:2] / f"{key}.safetensors"

    def has(self, key: str) -> bool:
        """Whether an artifact is there; its bytes are verified when it is read."""
        return self.path(key).exists()

    def put(self, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Artifact:
        """Write an artifact, atomically and durably; `facts` are plain JSON values.

        One that is there already, and sound, stays: equal keys mean equal results.
        """
        from safetensors.torch import save  # it loads torch, which a plan does without

        if self.has(key):
            with contextlib.suppress(CorruptError):
                return self.get(key)
        entry = canonical({"facts": dict(facts), "key": key, "sha256": _BLANK.decode()})
        blob = save({name: t.contiguous() for name, t in tensors.items()}, {_ENTRY: entry})
        digest = hashlib.sha256(blob).hexdigest()
        (length,) = struct.unpack_from("<Q", blob)
        at = blob.rindex(_MARK + _BLANK, 8, 8 + length) + len(_MARK)
        blob = blob[:at] + digest.encode() + blob[at + 64 :]
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, blob)
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
        """The size in bytes of an artifact whose bytes are those written; else CorruptError, or FileNotFoundError."""
        blob, _, _ = self._read(key)
        return len(blob)

    def _read(self, key: str) -> tuple[bytes, dict[str, Any], str]:
        """The verified bytes of an artifact, its metadata, and its SHA-256."""
        path = self.path(key)
        blob = path.read_bytes()
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
                raise CorruptError(f"{path}: its bytes do not match its SHA-256")
            entry: dict[str, Any] = json.loads(json.loads(header)["__metadata__"][_ENTRY])
            if entry["key"] != key:
                raise CorruptError(f"{path}: holds the artifact of another key, {entry['key']}")
            return blob, entry, digest
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise CorruptError(f"{path}: not a readable artifact ({error})") from error

    def __iter__(self) -> Iterator[str]:
        """The keys of all artifacts there are, in no order."""
        found = (path.stem for path in self.root.glob("??/*.safetensors"))
        return (key for key in found if _KEY.fullmatch(key))

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
            raise FileNotFoundError(path)
        try:
            with safetensors.safe_open(path, "pt") as file:
                found: Tensor = file.get_tensor(name)
                return found
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise CorruptError(f"{path}: not a readable artifact ({error})") from error

    def delete(self, key: str) -> None:
        """Remove an artifact that is no longer needed, if it is there."""
        self.path(key).unlink(missing_ok=True)

    def quarantine(self, key: str) -> Path:
        """Move a bad artifact out of the way, keeping it; returns where it is now."""
        folder = self.root / "corrupt"
        folder.mkdir(parents=True, exist_ok=True)
        number = sum(1 for _ in folder.glob(f"{key}.*"))
        return self.path(key).rename(folder / f"{key}.{number}.safetensors")

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
