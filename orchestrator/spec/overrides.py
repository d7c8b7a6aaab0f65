"""Applies overrides to a sweep file's values. Overrides are `key=value` on the command line and a scale's changes.

An override of a key also replaces the values that a grid, a variant or a search gives to the key. All values in this
module are plain YAML values.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Iterable, Sequence

import yaml

from orchestrator.base.plain_values import Node, text_value
from orchestrator.spec.strict_merge import check_values, merge
from orchestrator.spec.yaml_text import YAML_ERRORS, load_yaml, odd_number, with_lists
from supsup_core.errors import InputError

_KEPT_WHOLE = ("grid", "variants", "scales", "search.space")
"""Keys of a sweep file whose values are mappings. The keys of these mappings are dotted keys, or names that the user
chose. `_by_full_key` does not flatten the mappings."""


def parse_overrides(overrides: Iterable[str], text_keys: Collection[str] = (), list_keys: Collection[str] = ()) -> Node:
    """Parses ["a.b=1", …] into {"a.b": 1, …}. Each value is read as YAML.

    text_keys: keys whose value is text, such as `output`. The values of text keys stay as typed (see text_value).
    list_keys: keys whose value is a list of texts, such as `only`. The items of a list stay as typed; a single text
    becomes a list.

    Raises InputError if an override is not `key=value`, or if its value is not YAML.
    """
    changes: Node = {}
    for item in overrides:
        key, equals, value = item.partition("=")
        if "${" in value:
            raise InputError(f"command line: {key}: ${{…}} is not supported; write the value itself")
        if not equals or not key:
            raise InputError(
                f"command line: {item!r} is not of the form key=value; write, for example, benchmark.num_tasks=10"
            )
        if key in text_keys:
            changes[key] = text_value(value)
            check_values({key: changes[key]}, "command line")
            continue
        try:
            if key in list_keys:
                changes[key] = _text_list(value)
            else:
                found = with_lists(load_yaml(value, yaml.SafeLoader))
                if (problem := odd_number(load_yaml(value, yaml.BaseLoader), found)) is not None:
                    raise InputError(f"command line: {key}: {problem}")
                changes[key] = _with_numbers(found)
        except YAML_ERRORS as error:
            raise InputError(f"command line: {key}: {value!r} is not a valid YAML value; put it in quotes") from error
        check_values({key: changes[key]}, "command line")
    return changes


def _text_list(typed: str) -> object:
    """Returns the items of a YAML list of texts. Returns None for null."""
    found = load_yaml(typed, yaml.BaseLoader) if text_value(typed) is not None else None
    return [found] if isinstance(found, str) else found


def _with_numbers(value: object) -> object:
    """Converts texts such as `1e-4` in a value to numbers, at every depth.

    PyYAML reads `1e-4` as text, because it requires a dot in a number with an exponent. OmegaConf, which reads the
    sweep files, reads `1e-4` as a number.
    """
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
    """Returns whether two dotted keys are equal, or one lies below the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def apply_changes(schema: type[object], config: Node, changes: Node, origin: str) -> None:
    """Applies changes to the config of a sweep, in place, and checks them against the dataclass `schema`.

    config: all fields of `schema` as plain values. changes: new values by dotted key, or in nested mappings. origin:
    where the changes come from, such as "command line". Raises InputError, whose text begins with `origin`, if a key is
    unknown or a value does not fit.
    """
    by_key = _by_full_key(changes)
    space = _search_space(config)
    for varied in (config["grid"], *config["variants"].values(), space):
        for key, value in by_key.items():
            _replace_varied(varied, key, value)
    axes = [key.removeprefix("search.space.") for key in by_key if key.startswith("search.space.")]
    for axis in (*_as_mapping(by_key.get("search.space")), *axes):
        space.pop(axis, None)  # a range is one value, so its old bounds must not be merged with the new ones
    for key, value in by_key.items():
        path = _path_of(key)
        section = {path[0]: config[path[0]]} if path[0] in config else {}
        _remove_renamed(section, path, value)
        config[path[0]] = merge(schema, _merged(section, _nested(path, value)), origin)[path[0]]


_OF_DOTTED_KEYS = ("grid", "search.space")
"""Keys of a sweep file whose value maps the dotted keys of an experiment to lists or ranges."""


def _path_of(key: str) -> list[str]:
    """Returns the keys of nested mappings that lead to a dotted key. `grid.net.width` is the key `net.width` of
    `grid`."""
    for section in _OF_DOTTED_KEYS:
        if key.startswith(f"{section}."):
            return [*section.split("."), key.removeprefix(f"{section}.")]
    return key.split(".")


def _by_full_key(changes: Node, prefix: str = "") -> Node:
    """Flattens changes to one mapping with full dotted keys.

    Does not flatten three kinds of mappings: a mapping with a `name`, because such a mapping describes a whole
    component; the mappings in _KEPT_WHOLE; and a range of a search.
    """
    found: Node = {}
    for key, value in changes.items():
        full = f"{prefix}{key}"
        kept = full in _KEPT_WHOLE or full.startswith(tuple(f"{section}." for section in _OF_DOTTED_KEYS))
        if isinstance(value, dict) and value and "name" not in value and not kept:
            found |= _by_full_key(value, f"{full}.")
        else:
            found[full] = value
    return found


def _search_space(config: Node) -> Node:
    """Returns the search space of a sweep, or an empty mapping if the sweep has no search."""
    return _as_mapping(_as_mapping(config["search"]).get("space"))


def _as_mapping(value: object) -> Node:
    """Returns `value` if it is a mapping, else an empty mapping."""
    return value if isinstance(value, dict) else {}


def _replace_varied(varied: Node, key: str, value: object) -> None:
    """Applies an override of `key` to `varied`, which maps the dotted keys of a grid, a variant or a search to values.

    Removes the entries of `varied` for `key` and for keys below `key`. If `varied` has an entry for a key above `key`,
    sets `key` to `value` in each mapping of this entry.
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
    """Sets the value at a path of keys, and creates missing mappings on the way."""
    for key in path[:-1]:
        if not isinstance(node.get(key), dict):
            node[key] = {}
        node = node[key]
    node[path[-1]] = value


def _nested(path: Sequence[str], value: object) -> Node:
    """Returns nested mappings that contain only `value`, at a path of keys."""
    node: Node = {}
    _set(node, path, value)
    return node


def _merged(old: object, new: Node) -> Node:
    """Merges two mappings recursively. If a key's values are not both mappings, the new value is used."""
    if not isinstance(old, dict):
        return new
    return old | {key: _merged(old.get(key), value) if isinstance(value, dict) else value for key, value in new.items()}


def _remove_renamed(held: object, path: Sequence[str], value: object) -> None:
    """Clears each component whose `name` an override changes. `value` overrides the value at `path` in `held`.

    A component with another name has other fields, so the old fields must not be merged into it.
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
