"""Checks plain values against the fields of a dataclass. Unknown keys are errors, and every error names its key."""

from __future__ import annotations

import copy
import functools
import math
import types
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, UnsupportedValueType

from orchestrator.base.plain_values import Node, is_text
from orchestrator.base.wording import one_line
from orchestrator.spec.sweep_keys import EXPERIMENT_KEYS
from supsup_core.errors import InputError, prefix_errors
from supsup_core.field_limits import check_length, limits_of
from supsup_core.registry import nearest


def merge(schema: type[object], node: Node, where: str, path: str = "") -> Node:
    """Returns the fields of the dataclass `schema` as plain values.

    Values in `node` are converted to the types of their fields; other fields get their defaults. A field without a
    default that `node` does not set is left out. A mapping for a nested dataclass, or for a field whose default is a
    mapping, is merged into the default.

    path: the dotted key of `node` in the config; "" for the whole config. Raises InputError if a key is unknown or a
    value does not fit its field's type, or if `check_values` refuses a value. The error's text begins with `where`, if
    any, and the full dotted key.
    """
    check_values(node, where, path)
    with prefix_errors(f"{where}: " if where else ""):
        _check(schema, node, path)
        try:
            merged = copy.deepcopy(_merged_once(_Values(schema, repr(node), node)))
            check_values(merged, "", path)  # again, because OmegaConf converts a text such as `nan` to a number
            return merged
        except OmegaConfBaseException as error:
            if error.full_key is None:  # OmegaConf does not name the key of a wrong value in a tuple
                raise InputError(
                    f"{_below(path, _refused_key(schema, node))}: a value in this list has the wrong type"
                ) from error
            raise InputError(config_problem(error, path)) from error


@dataclass(frozen=True)
class _Values:
    """Plain values for a dataclass. Comparing two objects is fast, because only `schema` and `text` are compared."""

    schema: type[object]
    text: str
    node: Node = field(compare=False)


@functools.lru_cache(maxsize=500)
def _merged_once(values: _Values) -> Node:
    """Returns the merged fields as plain values.

    The fields are cached, because merging is slow, and most runs of a sweep have most of their sections in common. The
    caller must copy the result.
    """
    return _without_missing(as_node(_merged(values.schema, values.node)))


def _merged(schema: type[object], node: Node) -> object:
    """Returns an OmegaConf config with the fields of a dataclass and the values of `node`."""
    return OmegaConf.merge(_schema_config(schema), node)  # type: ignore[arg-type]  # every class is hashable


@functools.cache
def _schema_config(schema: type[object]) -> DictConfig:
    """Returns a writable OmegaConf config with the fields of a dataclass. Cached, because creating a config is slow."""
    config = OmegaConf.structured(schema)
    assert isinstance(config, DictConfig)
    _make_writable(config)
    return config


def _refused_key(schema: type[object], node: Node) -> str:
    """Returns the first key of `node` whose value cannot be merged into `schema`, or "" if there is none."""
    for key, value in node.items():
        try:
            _merged(schema, {key: value})
        except OmegaConfBaseException:
            return key
    return ""


def field_names(schema: type[object]) -> list[str]:
    """Returns the names of the fields of a dataclass."""
    return [field.name for field in fields(schema)]  # type: ignore[arg-type]  # a dataclass has fields


def as_node(config: object) -> Node:
    """Converts an OmegaConf mapping to plain values."""
    assert isinstance(config, DictConfig)
    node = OmegaConf.to_container(config)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def config_problem(error: OmegaConfBaseException, path: str = "") -> str:
    """Returns the text of an OmegaConf error in one line, with the full dotted key. path: the key of the section."""
    lines = (error.msg or str(error)).splitlines() or [type(error).__name__]
    remedy = "; put it in quotes" if isinstance(error, UnsupportedValueType) else ""
    return ": ".join(part for part in (_below(path, error.full_key or ""), f"{lines[0]}{remedy}") if part)


_MOST_NUMBER = 1e30
"""The largest absolute value of a float. A much larger number would overflow float32 (at most about 3.4e38)."""

_MOST_INTEGER = 2**63 - 1
"""The largest absolute value of an integer, which must fit into 64 bits."""


_MOST_NESTED = 20
"""The largest nesting depth of mappings and lists, and the largest number of dots in a key."""


def check_values(value: object, where: str, path: str = "", depth: int = 0) -> None:
    """Raises InputError if a config cannot contain a value.

    A config cannot contain NaN, infinity, too large numbers, values that JSON lacks (such as dates), or texts that are
    not Unicode. A config also cannot contain `???`, which means a missing value in OmegaConf, or values that are nested
    too deeply. The error's text begins with `where`, if any, and the full dotted key. path: the dotted key of `value`.
    depth: the number of mappings and lists around `value`.
    """
    problem = (
        f"mappings and lists are nested more than {_MOST_NESTED} levels deep"
        if depth > _MOST_NESTED
        else _problem_of(value)
    )
    if problem:
        raise InputError(f"{f'{where}: ' if where else ''}{path}: {problem}")
    if isinstance(value, dict):
        for key in value:
            if problem := _problem_of_key(key):
                raise InputError(f"{f'{where}: ' if where else ''}{_below(path, key)}: {problem}")
    for inner_path, inner in _inner(value, path):
        check_values(inner, where, inner_path, depth + 1)


def _problem_of_key(key: object) -> str | None:
    """Returns why a config cannot contain a key, or None if the key is allowed."""
    if not isinstance(key, str):
        return f"a key must be text; put {one_line(key)} in quotes"
    return "is not a key, because it has too many dots" if key.count(".") > _MOST_NESTED else _problem_of(key)


def _problem_of(value: object) -> str | None:
    """Returns why a config cannot contain a value, or None if the value is allowed.

    Does not check the items of lists and mappings.
    """
    match value:
        case None | bool() | dict() | list() | tuple():
            return None
        case int() if abs(value) > _MOST_INTEGER:
            digits = int(math.log10(abs(value))) + 1
            return f"a number of {digits} digits does not fit into 64 bits; set a smaller number"
        case float() if not math.isfinite(value):
            return f"must be a finite number, not {value}"
        case float() if abs(value) > _MOST_NUMBER:
            return f"must be a number from {-_MOST_NUMBER:g} to {_MOST_NUMBER:g}, not {value:g}"
        case int() | float():
            return None
        case str() if value == MISSING:
            return f"is missing; write a value in place of {value}"
        case str():
            return (
                None
                if is_text(value)
                else "contains null characters or characters that are not valid Unicode; remove these"
            )
        case _:
            return f"must be text, a number, true, false or null, not a {type(value).__name__}; put it in quotes"


def _inner(value: object, path: str) -> Iterator[tuple[str, object]]:
    """Yields (full dotted key, value) for each value in a mapping or list. path: the full dotted key of `value`."""
    if isinstance(value, dict):
        yield from ((_below(path, key), inner) for key, inner in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"{path}[{number}]", inner) for number, inner in enumerate(value))


def _below(path: str, key: object) -> str:
    """Returns the full dotted key of `key` in the section `path`. `key` or `path` may be empty."""
    return f"{path}.{one_line(key)}" if path and key != "" else path or one_line(key)


def _without_missing(node: Node) -> Node:
    """Returns plain values without the fields that OmegaConf marks as missing, at every depth."""
    return {
        key: _without_missing(value) if isinstance(value, dict) else value
        for key, value in node.items()
        if value != MISSING
    }


def _check(kind: object, value: object, path: str) -> None:
    """Raises InputError if a key is unknown, or if the type `kind` does not allow a mapping, list or null in `value`.

    OmegaConf later checks single values, such as numbers and text.
    """
    if kind is Any or kind is object:
        return
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        members = [member for member in arguments if member is not types.NoneType]
        if len(members) == 1 and (value is not None or len(members) == len(arguments)):
            _check(members[0], value, path)
    elif is_dataclass(kind) and isinstance(kind, type):
        _check_fields(kind, _mapping(value, path), path)
    elif (origin or kind) is dict:
        for key, inner in _mapping(value, path).items():
            _check_key(arguments[0] if arguments else str, key, path)
            _check(arguments[1] if arguments else Any, inner, _below(path, key))
    elif (origin or kind) in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{path}: must be a list, not {_described(value)}")
        for inner_path, inner in _inner(value, path):
            _check(arguments[0] if arguments and origin is list else Any, inner, inner_path)
    elif isinstance(value, (dict, list)) or (value is None and None not in arguments):
        is_axis = isinstance(value, list) and path.split(".")[0] in EXPERIMENT_KEYS
        remedy = f"; to run several values, set grid.{path}" if is_axis else ""
        raise InputError(f"{path}: must be a single value, not {_described(value)}{remedy}")


@functools.cache
def _hints_of(schema: type[object]) -> dict[str, Any]:
    """Returns the types of the fields of a dataclass. The types are cached, because evaluating them is slow."""
    return get_type_hints(schema)


def _check_fields(schema: type[object], node: dict[object, object], path: str) -> None:
    """Raises InputError if a key is not a field of the dataclass `schema`, or if its value fails `_check`."""
    hints = _hints_of(schema)  # type: ignore[arg-type]  # every class is hashable
    known = sorted(field_names(schema))
    for key, value in node.items():
        if key not in known:
            raise InputError(
                f"{_below(path, key)}: unknown key{nearest(str(key), known)}; the known keys are: {', '.join(known)}"
            )
        limits = limits_of(schema, str(key))
        if limits is not None:
            check_length(_below(path, key), value, limits)  # before OmegaConf, which needs 0.2 ms for each item
        _check(hints[str(key)], value, _below(path, key))


def _check_key(kind: object, key: object, path: str) -> None:
    """Raises InputError if the keys of a mapping must be text (`kind` is str) and `key` is not text."""
    if kind is str and not isinstance(key, str):
        raise InputError(f"{_below(path, key)}: a key must be text; put {key} in quotes")


def _mapping(value: object, path: str) -> dict[object, object]:
    """Returns `value`. Raises InputError if `value` is not a mapping."""
    if not isinstance(value, dict):
        raise InputError(f"{f'{path}: ' if path else ''}must be a mapping, not {_described(value)}")
    return value


def _described(value: object) -> str:
    """Returns a description of a value for an error's text."""
    if value is None:
        return "null"
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)


def _make_writable(config: DictConfig) -> None:
    """Removes the read-only flags that OmegaConf sets for frozen dataclasses, so that values can be merged."""
    OmegaConf.set_readonly(config, None)
    for key in config:
        inner = OmegaConf.select(config, str(key))
        if isinstance(inner, DictConfig):
            _make_writable(inner)
