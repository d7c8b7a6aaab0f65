"""Reads YAML texts of users within limits, so that a small text cannot take hours or all memory."""

from __future__ import annotations

import re
from collections.abc import Iterable

import yaml

_MOST_NESTED = 200
"""The largest number of brackets of a YAML text that may be open at once."""

_MOST_VALUES = 10_000
"""The largest number of values in a YAML text, when each alias (`*name`) counts as a copy of the value that it
names."""

_MERGE = "<<"
"""The key that merges other mappings into a mapping."""

_OCTAL = re.compile(r"[-+]?0[0-7_]+")
"""A number that YAML 1.1 reads in base 8."""

YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""The errors that PyYAML and OmegaConf raise for a text that is not valid YAML. Some of these errors are no YAMLError:
a tag that does not fit its value, such as `!!int ""`, raises an IndexError or an AttributeError."""


def load_yaml(text: str, loader: type[yaml.BaseLoader] | type[yaml.SafeLoader]) -> object:
    """Returns the value of a YAML text. Raises one of YAML_ERRORS if the text is not valid, or if it is too large.

    A small text can stand for billions of values, by aliases (`*name`). The text is therefore first read with
    BaseLoader, which uses one shared object for all aliases of a value. Other loaders would copy a mapping for each
    merge key (`<<`).
    """
    _check_nesting(text)
    written = yaml.load(text, Loader=yaml.BaseLoader)
    if _num_values(written, {}) > _MOST_VALUES:
        raise ValueError(f"the text has more than {_MOST_VALUES:,} values when its aliases are expanded")
    return written if loader is yaml.BaseLoader else yaml.load(text, Loader=loader)


def with_lists(value: object) -> object:
    """Returns a value with lists in place of tuples, which the YAML tags `!!omap` and `!!pairs` make."""
    match value:
        case dict():
            return {key: with_lists(inner) for key, inner in value.items()}
        case list() | tuple():
            return [with_lists(inner) for inner in value]
    return value


def odd_number(written: object, value: object) -> str | None:
    """Returns what is wrong with the first number that YAML reads in base 60 or 8, such as 12:30 or 017; else None.

    Nobody who writes such a number means it. written: the values of a YAML text, each as its text (BaseLoader). value:
    the same values, as read. A text in quotes is no number, and is left alone.
    """
    pairs: Iterable[tuple[object, object]]
    match written, value:
        case dict(), dict() if len(written) == len(value) and _MERGE not in written:
            pairs = zip([*written, *written.values()], [*value, *value.values()], strict=True)
        case dict(), dict():  # a merge key adds keys, and changes their order
            pairs = [(inner, value[key]) for key, inner in written.items() if key in value]
        case list(), list() if len(written) == len(value):
            pairs = zip(written, value, strict=True)
        case str(), int() | float() if not isinstance(value, bool):
            base = 60 if ":" in written else 8 if _OCTAL.fullmatch(written) else None
            if base is None:
                return None
            return f"YAML reads {written} in base {base}, as {value}; write a decimal number, or quote a text"
        case _:
            return None
    return next((found for one, other in pairs if (found := odd_number(one, other)) is not None), None)


def _num_values(value: object, known: dict[int, int]) -> int:
    """Returns the number of values in a nested value. known: maps the `id` of each list and mapping that was counted
    before to its number of values.

    Aliases share one object, so a value that stands for billions of copies is counted in a moment.
    """
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        known[id(value)] = _MOST_VALUES  # ends the recursion if a value contains itself
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
