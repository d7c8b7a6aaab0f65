"""Content keys: each result is named by a hash of everything that determines it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
"""The encoder of all keys. A plan has tens of thousands of keys, and creating an encoder costs as much as using it."""


def canonical(value: Any) -> str:
    """Returns `value` as JSON with sorted keys and no spaces, so that equal values give equal texts."""
    return _ENCODER.encode(value)


def content_key(value: Any, length: int = 40) -> str:
    """Returns the first `length` hex digits of the SHA-256 of a plain value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]
