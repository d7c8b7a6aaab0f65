"""The bytes of an artifact: a safetensors file that carries its own checksum.

Its one metadata entry is a JSON text with the key, the facts and the SHA-256 of the whole file, computed with the 64
digits of the hash itself as zeros. So a single flipped byte anywhere is detected, and a plain safetensors reader can
still open the file. Equal content gives equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import safetensors

from orchestrator.base.keys import canonical
from orchestrator.records.facts import Facts, facts_from_node, facts_to_node
from supsup_core.errors import CorruptError

if TYPE_CHECKING:
    from torch import Tensor

_ENTRY = "supsup"
_BLANK = b"0" * 64
_MARK = b'\\"sha256\\":\\"'
KEY = re.compile(r"[0-9a-f]{8,64}(-[0-9]{12,})?")
"""What a content key looks like; with a number, that of a checkpoint."""


class CorruptArtifactError(CorruptError):
    """An artifact that is needed is missing or corrupt; `key` says which."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Artifact:
    """One stored result. `num_bytes` is the size of its file."""

    key: str
    tensors: dict[str, Tensor]
    facts: Facts
    sha256: str
    num_bytes: int


@dataclass(frozen=True)
class Header:
    """What an artifact's bytes say of themselves, verified. `facts`: as plain JSON values."""

    facts: object
    sha256: str


def encode(key: str, tensors: Mapping[str, Tensor], facts: Facts) -> tuple[bytes, str]:
    """The bytes of an artifact, and their SHA-256."""
    from safetensors.torch import save  # it loads torch, which a coordinator of given tasks does without

    entry = canonical({"facts": facts_to_node(facts), "key": key, "sha256": _BLANK.decode()})
    blob = save({name: t.contiguous() for name, t in tensors.items()}, {_ENTRY: entry})
    digest = hashlib.sha256(blob).hexdigest()
    (length,) = struct.unpack_from("<Q", blob)
    at = blob.rindex(_MARK + _BLANK, 8, 8 + length) + len(_MARK)
    return blob[:at] + digest.encode() + blob[at + 64 :], digest


def decode(key: str, blob: bytes, header: Header, where: str) -> Artifact:
    """An artifact from its verified bytes. CorruptError, naming `where` they are, when they cannot be read."""
    from safetensors.torch import load

    try:
        return Artifact(key, load(blob), facts_from_node(header.facts), header.sha256, len(blob))
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError, CorruptError) as error:
        raise CorruptError(f"{where}: not a readable artifact ({error})") from error


def verify(key: str, blob: bytes, where: str) -> Header:
    """Check an artifact's bytes. CorruptError unless they are those that were written for its key."""
    try:
        (length,) = struct.unpack_from("<Q", blob)
        head = blob[8 : 8 + length]
        at = 8 + head.rindex(_MARK) + len(_MARK)
        claimed = blob[at : at + 64]
        hashed = hashlib.sha256(memoryview(blob)[:at])
        hashed.update(_BLANK)
        hashed.update(memoryview(blob)[at + 64 :])
        digest = hashed.hexdigest()
        if digest.encode() != claimed:
            raise CorruptError(f"{where}: its bytes do not match its SHA-256")
        entry = json.loads(json.loads(head)["__metadata__"][_ENTRY])
        if entry["key"] != key:
            raise CorruptError(f"{where}: holds the artifact of another key, {entry['key']}")
        return Header(entry["facts"], digest)
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise CorruptError(f"{where}: not a readable artifact ({error})") from error
