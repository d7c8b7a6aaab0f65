"""Plain JSON and YAML values, and how they become dataclasses."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

Node = dict[str, Any]
"""A part of a config as its file holds it. Its keys are those of whatever component it names, a user's own included, so
no dataclass of this project lists them."""


def from_json(text: bytes, kind: type[T]) -> T:
    """A dataclass from JSON, every field checked against its type. ValueError when the text is not one.

    Unknown keys are ignored: a later version may have added them.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(text), kind, str_keys=True)  # msgspec knows no NaN, and json does


def from_node(node: object, kind: type[T]) -> T:
    """A dataclass from plain values, every field checked against its type. ValueError when they do not fit."""
    return msgspec.convert(node, kind, str_keys=True)


def to_node(value: object) -> Node:
    """A dataclass as plain values: dicts with text keys, lists, numbers, text, None."""
    node: Node = msgspec.to_builtins(value, str_keys=True)
    return node


def flatten(node: Node, prefix: str = "") -> Node:
    """Nested mappings as one, by dotted keys."""
    flat: Node = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
