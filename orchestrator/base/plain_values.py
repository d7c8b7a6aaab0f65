"""Converts between dataclasses and plain JSON or YAML values."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Protocol, TypeVar

import msgspec
import yaml

T = TypeVar("T")

_MOST_NESTED = 200
"""The largest number of brackets of a YAML text that may be open at once."""

MOST_VALUES = 10_000
"""The largest number of values in a YAML text, when each alias (`*name`) counts as a copy of the value that it
names."""

YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""The errors that PyYAML and OmegaConf raise for a text that is not valid YAML. Some of these errors are no YAMLError:
a tag that does not fit its value, such as `!!int ""`, raises an IndexError or an AttributeError."""

Node = dict[str, Any]
"""A mapping from text keys to plain values, such as one section of a config. The keys of a section are the fields of
the class that the section's `name` selects. A user may define this class, so no dataclass of this project can list the
keys."""


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


def from_json(text: bytes, kind: type[T]) -> T:
    """Builds an object of the dataclass `kind` from JSON and checks every field against its type.

    Unknown keys are ignored, because a later version may have added them. Raises ValueError if the text is not JSON or
    if a field is missing or has the wrong type.
    """
    try:
        return msgspec.json.decode(text, type=kind, dec_hook=decode_own)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return from_node(json.loads(text), kind)  # msgspec cannot read NaN; json can


def from_node(node: object, kind: type[T]) -> T:
    """Builds an object of the dataclass `kind` from plain values and checks every field against its type.

    Raises ValueError if a field is missing or has the wrong type.
    """
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

    Returns None for `null`, `~` and an empty text.
    """
    if typed in ("null", "~", ""):
        return None
    if len(typed) > 1 and typed[0] == typed[-1] and typed[0] in "\"'":
        with contextlib.suppress(*YAML_ERRORS):
            found = load_yaml(typed, yaml.BaseLoader)
            if isinstance(found, str):
                return found
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


def load_yaml(text: str, loader: type[yaml.BaseLoader] | type[yaml.SafeLoader]) -> object:
    """Returns the value of a YAML text. Raises one of YAML_ERRORS if the text is not valid, or if it is too large.

    A small text can stand for billions of values, by aliases (`*name`). The text is therefore first read with
    BaseLoader, which uses one shared object for all aliases of a value. Other loaders would copy a mapping for each
    merge key (`<<`).
    """
    _check_nesting(text)
    written = yaml.load(text, Loader=yaml.BaseLoader)
    if _num_values(written, {}) > MOST_VALUES:
        raise ValueError(f"the text has more than {MOST_VALUES:,} values when its aliases are expanded")
    return written if loader is yaml.BaseLoader else yaml.load(text, Loader=loader)


def with_lists(value: object) -> object:
    """Returns a value with lists in place of tuples, which the YAML tags `!!omap` and `!!pairs` make."""
    match value:
        case dict():
            return {key: with_lists(inner) for key, inner in value.items()}
        case list() | tuple():
            return [with_lists(inner) for inner in value]
    return value


def _num_values(value: object, known: dict[int, int]) -> int:
    """Returns the number of values in a nested value. known: maps the `id` of each list and mapping that was counted
    before to its number of values.

    Aliases share one object, so a value that stands for billions of copies is counted in a moment.
    """
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST_VALUES  # ends the recursion if a value contains itself
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_num_values(one, known) for one in inner)
    return known[id(value)]


def _check_nesting(text: str) -> None:
    """Raises ValueError if a YAML text has more than _MOST_NESTED nested brackets.

    PyYAML's run time grows with the square of the nesting depth, and Python's recursion limit is about a thousand.
    """
    depth = 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if depth > _MOST_NESTED:
            raise ValueError(f"brackets are nested more than {_MOST_NESTED} levels deep")
