"""Overrides: `key=value` on the command line, and the changes that a scale makes. They win over everything in the file.

A change of a key also takes the place of the values that a grid, a variant or a search gives that key. All values here
are plain ones, as YAML holds them.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Sequence

import yaml

from orchestrator.base.plain_values import Node
from orchestrator.spec.strict_merge import merge
from supsup_core.errors import InputError

_KEPT_WHOLE = ("grid", "variants", "scales", "search.space")
"""Mappings whose keys are dotted keys or names of the user's: an override of one stays one change."""


def parse_overrides(overrides: Iterable[str]) -> Node:
    """["a.b=1", …] as {"a.b": 1, …}, each value read as YAML. InputError when an override is not `key=value`."""
    changes: Node = {}
    for item in overrides:
        key, equals, value = item.partition("=")
        if "${" in value:
            raise InputError(f"command line: {key}: ${{…}} is not supported; write the value out")
        if not equals or not key:
            raise InputError(f"command line: {item!r} is not key=value; for example benchmark.num_tasks=10")
        try:
            changes[key] = _with_numbers(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise InputError(f"command line: {key}: {value!r} is not a YAML value") from error
    return changes


def _with_numbers(value: object) -> object:
    """A value in which text such as 1e-4 is a number. YAML 1.1 asks for a dot in it; sweep files do not."""
    match value:
        case dict():
            return {key: _with_numbers(inner) for key, inner in value.items()}
        case list():
            return [_with_numbers(inner) for inner in value]
        case str() if any(character.isdigit() for character in value):
            with contextlib.suppress(ValueError):
                return float(value)
    return value


def overlap(one: str, other: str) -> bool:
    """Whether two dotted keys are equal, or one lies below the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def apply_changes(schema: type[object], config: Node, changes: Node, origin: str) -> None:
    """Make changes to the config of a sweep, checked against the dataclass `schema`.

    config: all fields of `schema` as plain values; it is changed in place.
    changes: values by dotted keys, or mappings of them. origin: where they stand; the text of an InputError begins
    with it.
    """
    by_key = _by_full_key(changes)
    space = _search_space(config)
    for varied in (config["grid"], *config["variants"].values(), space):
        for key, value in by_key.items():
            _replace_varied(varied, key, value)
    for axis in _as_mapping(by_key.get("search.space")):
        space.pop(axis, None)  # a range is one value: its old bounds must not be merged with the new ones
    for key, value in by_key.items():
        path = key.split(".")
        section = {path[0]: config[path[0]]} if path[0] in config else {}
        _remove_renamed(section, path, value)
        config[path[0]] = merge(schema, _merged(section, _nested(path, value)), origin)[path[0]]


def _by_full_key(changes: Node, prefix: str = "") -> Node:
    """Changes by their full dotted keys.

    A mapping with a `name` describes a whole component and stays one value. So do the mappings in _KEPT_WHOLE.
    """
    found: Node = {}
    for key, value in changes.items():
        full = f"{prefix}{key}"
        if isinstance(value, dict) and value and "name" not in value and full not in _KEPT_WHOLE:
            found |= _by_full_key(value, f"{full}.")
        else:
            found[full] = value
    return found


def _search_space(config: Node) -> Node:
    """The space that a sweep searches; empty where it searches none."""
    return _as_mapping(_as_mapping(config["search"]).get("space"))


def _as_mapping(value: object) -> Node:
    """`value` if it is a mapping; else an empty one."""
    return value if isinstance(value, dict) else {}


def _replace_varied(varied: Node, key: str, value: object) -> None:
    """Make the values that a grid, a variant or a search gives to a key give way to an override of it.

    An entry for the key, or for one below it, is removed. An entry for a key above it gets `value` inside.
    """
    for other in list(varied):
        if other == key or other.startswith(f"{key}."):
            varied.pop(other)
        elif key.startswith(f"{other}."):
            held = varied[other]
            for part in held if isinstance(held, list) else [held]:
                if isinstance(part, dict):
                    _set(part, key.removeprefix(f"{other}.").split("."), copy.deepcopy(value))


def _set(node: Node, path: Sequence[str], value: object) -> None:
    """Set the value at a path of keys, and make the mappings above it where there are none."""
    for key in path[:-1]:
        if not isinstance(node.get(key), dict):
            node[key] = {}
        node = node[key]
    node[path[-1]] = value


def _nested(path: Sequence[str], value: object) -> Node:
    """Mappings that hold `value` at a path of keys, and nothing else."""
    node: Node = {}
    _set(node, path, value)
    return node


def _merged(old: object, new: Node) -> Node:
    """Two mappings as one. Where both have a mapping at a key, these are merged; else the new value counts."""
    if not isinstance(old, dict):
        return new
    return old | {key: _merged(old.get(key), value) if isinstance(value, dict) else value for key, value in new.items()}


def _remove_renamed(held: object, path: Sequence[str], value: object) -> None:
    """Empty the mappings in `held` that `value`, a change at `path`, gives another `name`.

    A component of another name has other keys: nothing of the old one may be merged with it.
    """
    if not isinstance(held, dict):
        return
    if path:
        _remove_renamed(held.get(path[0]), path[1:], value)
    elif isinstance(value, dict):
        if "name" in held and value.get("name", held["name"]) != held["name"]:
            held.clear()
        for key, inner in value.items():
            _remove_renamed(held, [key], inner)
