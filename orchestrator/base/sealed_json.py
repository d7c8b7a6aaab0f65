"""JSON files that contain a checksum of their own values, so that damage is found when such a file is read."""

from __future__ import annotations

import json
from collections.abc import Collection

from orchestrator.base.keys import content_key
from orchestrator.base.plain_values import Node

CHECKSUM = "sha256"
"""The key of the checksum: the SHA-256 of all other values as canonical JSON."""


def seal(node: Node) -> bytes:
    """Returns plain values as a JSON file with their checksum. Keys must be text, and numbers must be finite."""
    return json.dumps({**node, CHECKSUM: content_key(node, 64)}, indent=1).encode()


def unseal(content: bytes, unsealed_keys: Collection[str] = ()) -> tuple[Node, bool]:
    """Returns the values in a JSON file without their checksum, and whether the file has a checksum.

    unsealed_keys: the only keys that a file without a checksum may contain. Earlier versions of this program wrote
    files without a checksum. Raises ValueError if the file is not a JSON mapping, or if a value does not match the
    checksum. Raises ValueError also if a file without a checksum has another key. The other key may be the damaged name
    of the checksum's key.
    """
    node = json.loads(content)
    if not isinstance(node, dict):
        raise ValueError("it is not a JSON mapping")
    claimed = node.pop(CHECKSUM, None)
    if claimed is None:
        if unknown := sorted(node.keys() - set(unsealed_keys)):
            raise ValueError(f"it has no checksum, but unknown keys: {', '.join(unknown)}")
        return node, False
    if claimed != content_key(node, 64):
        raise ValueError("its content does not match its SHA-256")
    return node, True
