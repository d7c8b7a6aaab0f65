"""Computes content keys. A content key names a result by a hash of everything that determines the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
"""The JSON encoder of all content keys. The encoder is created once, because a sweep may need tens of thousands of
keys, and creating an encoder takes as long as encoding a value."""


def canonical(value: Any) -> str:
    """Returns `value` as a JSON text with sorted keys and no spaces, so that equal values give equal texts."""
    return _ENCODER.encode(value)


def content_key(value: Any, length: int = 40) -> str:
    """Hashes the canonical JSON of a plain value with SHA-256. Returns the first `length` hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def prefix_keys(values: Sequence[Any]) -> list[str]:
    """Returns content_key(values[:n]) for each n from 0 to len(values), in linear time."""
    hashed = hashlib.sha256(b"[")
    keys = [content_key([])]
    for number, value in enumerate(values):
        hashed.update(b"," * (number > 0) + canonical(value).encode())
        whole = hashed.copy()
        whole.update(b"]")
        keys.append(whole.hexdigest()[: len(keys[0])])
    return keys
