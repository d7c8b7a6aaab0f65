"""Plain values become the fields of a dataclass. Every key must be known, and every error names the key."""

from __future__ import annotations

import contextlib
import functools
import math
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, UnsupportedValueType

from orchestrator.base.plain_values import Node
from supsup_core.errors import InputError
from supsup_core.registry import nearest


def merge(schema: type[object], node: Node, where: str, path: str = "") -> Node:
    """The fields of the dataclass `schema` as plain values: those in `node`, converted to the fields' types, and the
    defaults of the others. A field without a default is absent where `node` does not set it.

    A mapping for a nested dataclass, or for a field whose default is a mapping, is merged into the default.

    InputError for an unknown key, and for a value that the type of its field does not allow. Its text begins with
    `where`, if any, and the key below `path`.
    """
    with prefix_errors(f"{where}: " if where else ""):
        _check_not_missing(node, path)
        _check(schema, node, path)
        try:
            return _without_missing(as_node(_merged(schema, node)))
        except OmegaConfBaseException as error:
            if error.full_key is None:  # OmegaConf does not name the key of a wrong value in a tuple
                raise InputError(
                    f"{_below(path, _refused_key(schema, node))}: a value in it has the wrong type"
                ) from error
            raise InputError(config_problem(error, path)) from error


def _merged(schema: type[object], node: Node) -> object:
    """A config of OmegaConf: the fields of a dataclass, with the values of `node`."""
    return OmegaConf.merge(_schema_config(schema), node)  # type: ignore[arg-type]  # every class is hashable


@functools.cache
def _schema_config(schema: type[object]) -> DictConfig:
    """A config of OmegaConf with the fields of a dataclass, to be merged into. Making one takes longer than a merge."""
    config = OmegaConf.structured(schema)
    assert isinstance(config, DictConfig)
    _make_writable(config)
    return config


def _refused_key(schema: type[object], node: Node) -> str:
    """The first key of `node` whose value cannot be merged into a dataclass."""
    for key, value in node.items():
        try:
            _merged(schema, {key: value})
        except OmegaConfBaseException:
            return key
    return ""


def field_names(schema: type[object]) -> list[str]:
    """The names of the fields of a dataclass."""
    return [field.name for field in fields(schema)]  # type: ignore[arg-type]  # a dataclass has fields


def as_node(config: object) -> Node:
    """A config of OmegaConf that is a mapping as plain values."""
    assert isinstance(config, DictConfig)
    node = OmegaConf.to_container(config)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def config_problem(error: OmegaConfBaseException, path: str = "") -> str:
    """An error of OmegaConf in one line that begins with the key below `path`."""
    lines = (error.msg or str(error)).splitlines() or [type(error).__name__]
    remedy = "; put it in quotes" if isinstance(error, UnsupportedValueType) else ""
    return ": ".join(part for part in (_below(path, error.full_key or ""), f"{lines[0]}{remedy}") if part)


@contextlib.contextmanager
def prefix_errors(prefix: str, kind: type[InputError] = InputError) -> Iterator[None]:
    """Raise an InputError of the block again, as a `kind`, with `prefix` before its text."""
    try:
        yield
    except InputError as error:
        raise kind(f"{prefix}{error}") from error


def check_finite(value: object, where: str, path: str = "") -> None:
    """InputError for NaN or infinity anywhere in plain values. Its text begins with `where`, if any, and the key below
    `path`."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{f'{where}: ' if where else ''}{path}: must be a finite number, not {value}")
    for inner_path, inner in _inner(value, path):
        check_finite(inner, where, inner_path)


def _inner(value: object, path: str) -> Iterator[tuple[str, object]]:
    """The values that a mapping or a list holds, each with its key or number below `path`."""
    if isinstance(value, dict):
        yield from ((_below(path, key), inner) for key, inner in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"{path}[{number}]", inner) for number, inner in enumerate(value))


def _below(path: str, key: object) -> str:
    """The dotted name of a key below a path."""
    return f"{path}.{in_one_line(key)}" if path and key != "" else path or in_one_line(key)


def in_one_line(key: object) -> str:
    """A key as text, with escapes where it has line breaks or other characters that cannot be printed."""
    text = str(key)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _without_missing(node: Node) -> Node:
    """Plain values without OmegaConf's marks of fields that have neither a value nor a default."""
    return {
        key: _without_missing(value) if isinstance(value, dict) else value
        for key, value in node.items()
        if value != MISSING
    }


def _check_not_missing(value: object, path: str) -> None:
    """InputError for the text `???` anywhere in plain values: OmegaConf takes it for a missing value."""
    if value == MISSING:
        raise InputError(f"{path}: missing; write a value in place of {value}")
    for inner_path, inner in _inner(value, path):
        _check_not_missing(inner, inner_path)


def _check(kind: object, value: object, path: str) -> None:
    """InputError unless keys are known, and mappings, lists and null stand only where the type `kind` allows them.

    OmegaConf checks numbers, text and the other values that hold no others.
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
        raise InputError(f"{path}: must be a single value, not {_described(value)}")


def _check_fields(schema: type[object], node: dict[object, object], path: str) -> None:
    """InputError unless every key is a field of a dataclass, and its value passes `_check`."""
    hints = get_type_hints(schema)
    known = sorted(field_names(schema))
    for key, value in node.items():
        if key not in known:
            raise InputError(
                f"{_below(path, key)}: unknown key{nearest(str(key), known)}; there are: {', '.join(known)}"
            )
        _check(hints[str(key)], value, _below(path, key))


def _check_key(kind: object, key: object, path: str) -> None:
    """InputError when the keys of a mapping are text, and one is not."""
    if kind is str and not isinstance(key, str):
        raise InputError(f"{_below(path, key)}: a key must be text; put {key} in quotes")


def _mapping(value: object, path: str) -> dict[object, object]:
    """`value` if it is a mapping; else InputError."""
    if not isinstance(value, dict):
        raise InputError(f"{f'{path}: ' if path else ''}must be a mapping, not {_described(value)}")
    return value


def _described(value: object) -> str:
    """A value in an error's text."""
    if value is None:
        return "null"
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)


def _make_writable(config: DictConfig) -> None:
    """Remove the flag by which OmegaConf keeps frozen dataclasses from being merged into, at every depth."""
    OmegaConf.set_readonly(config, None)
    for key in config:
        inner = OmegaConf.select(config, str(key))
        if isinstance(inner, DictConfig):
            _make_writable(inner)
