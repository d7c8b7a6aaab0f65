"""Content keys: the name of a result is the hash of all that determines it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
"""One for all: a plan has tens of thousands of keys, and making an encoder takes as long as using it."""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: one text for one value."""
    return _ENCODER.encode(value)


def content_key(value: Any, length: int = 40) -> str:
    """The first `length` hex digits of the SHA-256 of a plain value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]
