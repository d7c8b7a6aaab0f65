"""Converts between dataclasses and plain JSON or YAML values."""

from __future__ import annotations

import contextlib
import json
from typing import Any, TypeVar

import msgspec
import yaml

T = TypeVar("T")

_MOST_NESTED = 200
"""The largest number of brackets of a YAML text that may be open at once."""

Node = dict[str, Any]
"""A mapping from text keys to plain values, such as one section of a config. The keys of a section are the fields of
the class that the section's `name` selects. The class may be a user's own, so no dataclass of this project can list the
keys."""


def from_json(text: bytes, kind: type[T]) -> T:
    """Builds an object of the dataclass `kind` from JSON and checks every field against its type.

    Unknown keys are ignored, because a later version may have added them. Raises ValueError if the text is not JSON or
    if a field is missing or has the wrong type.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(text), kind, str_keys=True)  # msgspec cannot read NaN; json can


def from_node(node: object, kind: type[T]) -> T:
    """Builds an object of the dataclass `kind` from plain values and checks every field against its type.

    Raises ValueError if a field is missing or has the wrong type.
    """
    return msgspec.convert(node, kind, str_keys=True)


def to_node(value: object) -> Node:
    """Converts a dataclass object to plain values: dicts with text keys, lists, numbers, text, None."""
    node: Node = msgspec.to_builtins(value, str_keys=True)
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
    """Returns the value of a text key that was typed as `key=value`: as typed, or without its quotes; None for null."""
    if typed in ("null", "~", ""):
        return None
    if len(typed) > 1 and typed[0] == typed[-1] and typed[0] in "\"'":
        with contextlib.suppress(yaml.YAMLError):
            found = yaml.load(typed, Loader=yaml.BaseLoader)
            if isinstance(found, str):
                return found
    return typed


def check_nesting(text: str) -> None:
    """Raises ValueError if a YAML text has more brackets inside each other than any sensible text.

    PyYAML's time grows with the square of this number, and Python's recursion ends at about a thousand.
    """
    depth = 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if depth > _MOST_NESTED:
            raise ValueError(f"more than {_MOST_NESTED} brackets are open at once")
