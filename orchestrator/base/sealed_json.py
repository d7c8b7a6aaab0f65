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

    unsealed_keys: the keys that files of earlier versions, which have no checksum, may contain. Raises ValueError if
    the file is not a JSON mapping, if a value does not match the checksum, or if a file without a checksum has another
    key. A damaged name of a key is therefore found as well.
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
