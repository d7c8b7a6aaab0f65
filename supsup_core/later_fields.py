"""Config fields that a later version of this program added.

A content key contains such a field only if the field's value is not the default.
"""

from __future__ import annotations

from dataclasses import Field, field, fields, is_dataclass
from typing import Any, TypeVar

T = TypeVar("T")

_ADDED_LATER = "added_later"


def added_later(default: T) -> T:
    """Declares a dataclass field that was added after outputs with content keys existed.

    default: the value that gives the results of earlier versions. With this value, the field is left out of content
    keys, so that earlier results keep their keys.
    """
    made: T = field(default=default, metadata={_ADDED_LATER: True})
    return made


def is_added_later(one: Field[Any]) -> bool:
    """Returns whether a dataclass field was declared with `added_later`."""
    return _ADDED_LATER in one.metadata


def identity_fields(value: object) -> Any:
    """Converts a dataclass object to plain values like `dataclasses.asdict`, without later fields at their defaults."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            one.name: identity_fields(getattr(value, one.name))
            for one in fields(value)
            if not (is_added_later(one) and getattr(value, one.name) == one.default)
        }
    if isinstance(value, dict):
        return {key: identity_fields(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [identity_fields(inner) for inner in value]
    return value


def without_later_defaults(schema: type, node: dict[str, Any]) -> dict[str, Any]:
    """Returns plain values of the dataclass `schema` without later fields at their defaults."""
    later = {one.name: one.default for one in fields(schema) if is_added_later(one)}
    return {key: value for key, value in node.items() if not (key in later and value == later[key])}
