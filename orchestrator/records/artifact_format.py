"""Defines the file format of an artifact: a safetensors file that contains its own checksum.

The file's one metadata entry is a JSON text with the key, the facts (see facts.py) and the SHA-256 of the whole file.
The SHA-256 is computed with zeros in place of its own 64 digits, so that the checksum detects any changed byte. Any
safetensors reader can open the file. The format is deterministic: equal content gives equal bytes.
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
"""The pattern of a content key. A key that ends in `-NUMBER` belongs to a checkpoint."""


class CorruptArtifactError(CorruptError):
    """A required artifact is missing or corrupt. `key`: the key of this artifact."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Artifact:
    """One stored result. `sha256`: the checksum of the artifact's file. `num_bytes`: the size of the file."""

    key: str
    tensors: dict[str, Tensor]
    facts: Facts
    sha256: str
    num_bytes: int


@dataclass(frozen=True)
class Header:
    """The verified metadata of an artifact file. `facts`: plain JSON values. `sha256`: the checksum of the file."""

    facts: object
    sha256: str


def encode(key: str, tensors: Mapping[str, Tensor], facts: Facts) -> tuple[bytes, str]:
    """Returns the bytes of an artifact file and their SHA-256."""
    from safetensors.torch import save  # imported here, because it loads torch, which a TaskCoordinator does not need

    entry = canonical({"facts": facts_to_node(facts), "key": key, "sha256": _BLANK.decode()})
    blob = save({name: t.contiguous() for name, t in tensors.items()}, {_ENTRY: entry})
    digest = hashlib.sha256(blob).hexdigest()
    (length,) = struct.unpack_from("<Q", blob)
    at = blob.rindex(_MARK + _BLANK, 8, 8 + length) + len(_MARK)
    return blob[:at] + digest.encode() + blob[at + 64 :], digest


def decode(key: str, blob: bytes, header: Header, where: str) -> Artifact:
    """Decodes an artifact from bytes that `verify` has accepted, and returns it.

    where: the file's name, for error messages. Raises CorruptError if the tensors or facts cannot be read.
    """
    from safetensors.torch import load

    try:
        return Artifact(key, load(blob), facts_from_node(header.facts), header.sha256, len(blob))
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError, CorruptError) as error:
        raise CorruptError(f"{where}: not a readable artifact ({error})") from error


def verify(key: str, blob: bytes, where: str) -> Header:
    """Verifies an artifact's bytes and returns their header.

    where: the file's name, for error messages. Raises CorruptError if the checksum is wrong, if the bytes are
    not an artifact, or if they are the artifact of another key.
    """
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
        entry = check_key(key, json.loads(head)["__metadata__"], where)
        return Header(entry["facts"], digest)
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise CorruptError(f"{where}: not a readable artifact ({error})") from error


def check_key(key: str, metadata: Mapping[str, str], where: str) -> dict[str, object]:
    """Checks that a safetensors file holds the artifact with key `key`, and returns the artifact's entry.

    The entry is a mapping with the artifact's key, facts and checksum. metadata: the metadata of the file. where: the
    file's name, for error messages. Raises CorruptError if the artifact has another key, and ValueError, KeyError or
    TypeError if the metadata has no readable entry.
    """
    entry: dict[str, object] = json.loads(metadata[_ENTRY])
    if entry["key"] != key:
        raise CorruptError(f"{where}: holds the artifact of another key, {entry['key']}")
    return entry
