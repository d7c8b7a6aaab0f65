"""Reads the text of a sweep file as plain values. Names and paths stay as they are written."""

from __future__ import annotations

import codecs
from collections.abc import Collection
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.base.plain_values import Node, check_nesting
from orchestrator.spec.strict_merge import as_node, config_problem
from supsup_core.errors import InputError

_MOST_BYTES = 1_000_000
"""The largest size of a sweep file."""

_MOST_VALUES = 100_000
"""The largest number of values in a sweep file, when each alias (`*name`) counts as a copy of what it stands for."""

_NAMES = ("variants", "scales")
"""Keys of a sweep file whose value maps names to changes."""


def read_sweep_text(path: Path, text_keys: Collection[str]) -> Node:
    """Returns the plain values of a sweep file. `name` is the file's stem if the file does not set it.

    text_keys: keys whose value is text, even if YAML reads it as a number, a date, true or false. Names of variants and
    scales are text too. Raises InputError if the file cannot be read, is too large, or is not a YAML mapping.
    """
    text = _text_of(path)
    if "${" in text:
        raise InputError(f"{path}: ${{…}} is not supported; write the value itself")
    try:
        check_nesting(text)
        raw = yaml.load(text, Loader=yaml.BaseLoader)  # reads every value as text
        if _num_values(raw, {}) > _MOST_VALUES:
            raise InputError(f"{path}: has more than {_MOST_VALUES} values, aliases included; write a smaller file")
        loaded = OmegaConf.create(text) if text.strip() else OmegaConf.create({})
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path}{not_yaml(error)}") from error
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {config_problem(error)}") from error
    if not isinstance(loaded, DictConfig):
        raise InputError(f"{path}: a sweep file must be a mapping of keys to values, such as `name: my_sweep`")
    node = as_node(loaded)
    if not {"benchmark", "net"} & node.keys():
        raise InputError(f"{path}: names neither a benchmark nor a net; set benchmark, such as {{name: permuted}}")
    return {"name": path.stem} | node | (_as_written(node, raw, text_keys) if isinstance(raw, dict) else {})


def _text_of(path: Path) -> str:
    """Returns the text of a file in UTF-8, or in UTF-16 with a byte order mark, as some editors write it."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: is larger than {_MOST_BYTES:,} bytes; this is not a sweep file")
        content = path.read_bytes()
        utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if utf_16 else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _as_written(node: Node, raw: Node, text_keys: Collection[str]) -> Node:
    """Returns the values of text keys, and the mappings of _NAMES, with their texts as they are written in the file.

    node: the file's values. raw: the same, with every value as text.
    """
    texts = {key: raw[key] for key in text_keys if isinstance(raw.get(key), str) and node.get(key) is not None}
    for key in _NAMES:
        if isinstance(node.get(key), dict) and isinstance(raw.get(key), dict) and len(node[key]) == len(raw[key]):
            texts[key] = dict(zip(raw[key], node[key].values(), strict=True))
    if isinstance(raw.get("only"), list):
        texts["only"] = raw["only"]
    return texts


def _num_values(value: object, known: dict[int, int]) -> int:
    """Returns the number of values in a nested value. known: the numbers of lists and mappings counted before, by id.

    Aliases share one object, so a value that stands for billions of copies is counted in a moment.
    """
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        known[id(value)] = 1  # for a value that contains itself
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_num_values(one, known) for one in inner)
    return known[id(value)]


def not_yaml(error: Exception) -> str:
    """Returns where and why a text is not valid YAML, as the end of a message that begins with the file's name."""
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    problem = getattr(error, "problem", None) or (str(error).splitlines() or ["?"])[0]
    return f"{where}: not valid YAML: {problem}"
