"""Converts between dataclasses, plain values and JSON."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any, Protocol, TypeVar

import msgspec

T = TypeVar("T")

Node = dict[str, Any]
"""A mapping from text keys to plain values, such as one section of a config. The keys of a section are the fields of
the class that the section's `name` selects. A user may define this class, so no dataclass of this project can list the
keys."""


_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}

_BUILDING = threading.Lock()
"""Held while msgspec analyses a class. At the first use of a dataclass, msgspec stores its description of the fields
before the description is complete. Another thread that used this description would crash the process."""


class OwnPlainForm(Protocol):
    """A class whose objects are stored as plain values of the class's own choice. All other classes are dataclasses."""

    def to_plain(self) -> object:
        """Returns the object as plain values."""

    @classmethod
    def from_plain(cls, plain: object) -> OwnPlainForm:
        """Builds an object from plain values. Raises ValueError if the values do not fit."""


def decode_own(kind: type[Any], plain: object) -> object:
    """Builds an object of a class with OwnPlainForm. msgspec calls this function for classes that it does not know."""
    return kind.from_plain(plain)


def encode_own(value: Any) -> object:
    """Returns an object of a class with OwnPlainForm as plain values. See `decode_own`."""
    return value.to_plain()


def _json_decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """Returns the cached JSON decoder of the dataclass `kind`. Threads may call this function at the same time."""
    decoder = _decoders.get(kind)
    if decoder is None:
        with _BUILDING:
            decoder = _decoders[kind] = msgspec.json.Decoder(kind, dec_hook=decode_own)
    return decoder


def from_json(text: bytes, kind: type[T]) -> T:
    """Builds an object of the dataclass `kind` from JSON and checks every field against its type.

    Unknown keys are ignored, because a later version may have added them. Raises ValueError if the text is not JSON or
    if a field is missing or has the wrong type.
    """
    try:
        return _json_decoder(kind).decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return from_node(json.loads(text), kind)  # msgspec cannot read NaN; json can


def from_node(node: object, kind: type[T]) -> T:
    """Builds an object of the dataclass `kind` from plain values and checks every field against its type.

    Raises ValueError if a field is missing or has the wrong type.
    """
    _json_decoder(kind)  # analyses the class while no other thread does
    return msgspec.convert(node, kind, str_keys=True, dec_hook=decode_own)


def to_node(value: object) -> Node:
    """Converts a dataclass object to plain values: dicts with text keys, lists, numbers, text, None."""
    node: Node = msgspec.to_builtins(value, str_keys=True, enc_hook=encode_own)
    return node


def flatten(node: Node, prefix: str = "") -> Node:
    """Flattens nested mappings into one mapping with dotted keys: {"a": {"b": 1}} becomes {"a.b": 1}."""
    flat: Node = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def text_value(typed: str) -> str | None:
    """Returns the value of a text key that was typed as `key=value`, without the quotes around it.

    Single quotes are read as in YAML (`'it''s'`), and double quotes as in JSON (`"it's"`). Returns None for `null`,
    `~` and an empty text.
    """
    if typed in ("null", "~", ""):
        return None
    inner = typed[1:-1]
    if len(typed) > 1 and typed[0] == typed[-1] == "'" and "'" not in inner.replace("''", ""):
        return inner.replace("''", "'")
    if len(typed) > 1 and typed[0] == typed[-1] == '"':
        with contextlib.suppress(ValueError):
            return str(json.loads(typed, strict=False))
    return typed


def is_text(value: str) -> bool:
    """Returns whether a text can be stored in every file and database: Unicode text without null characters.

    Command lines and file names can contain bytes that are not UTF-8. Python represents such bytes by surrogates, which
    cannot be encoded as UTF-8.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
