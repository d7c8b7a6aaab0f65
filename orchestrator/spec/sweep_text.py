"""Reads the text of a sweep file as plain values. Names and paths stay as they are written."""

from __future__ import annotations

import codecs
from collections.abc import Collection
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.base.plain_values import Node
from orchestrator.spec.strict_merge import as_node, config_problem
from orchestrator.spec.yaml_text import YAML_ERRORS, load_yaml, odd_number, with_lists
from supsup_core.errors import InputError
from supsup_core.input_files import read_file

_MOST_BYTES = 300_000
"""The largest size of a sweep file, or of a cluster file."""

_NAMES = ("variants", "scales")
"""Keys of a sweep file whose value maps names to changes."""


def read_sweep_text(path: Path, text_keys: Collection[str]) -> Node:
    """Returns the plain values of a sweep file. `name` is the file's stem if the file does not set `name`.

    text_keys: keys whose value is text, even if YAML reads it as a number, a date, true or false. Names of variants and
    scales are text too. Raises InputError if the file cannot be read, is too large, or is not a YAML mapping.
    """
    text = text_of(path)
    if "${" in text:
        raise InputError(f"{path}: ${{…}} is not supported; write the value itself")
    try:
        raw = load_yaml(text, yaml.BaseLoader)  # reads every value as text
        loaded = OmegaConf.create(text, max_yaml_expanded_nodes=None) if text.strip() else OmegaConf.create({})
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {config_problem(error)}") from error
    except YAML_ERRORS as error:
        raise InputError(f"{path}{not_yaml(error)}") from error
    if not isinstance(loaded, DictConfig):
        raise InputError(f"{path}: a sweep file must be a mapping of keys to values, such as `name: my_sweep`")
    node = {key: with_lists(value) for key, value in as_node(loaded).items()}
    if not {"benchmark", "net"} & node.keys():
        raise InputError(
            f"{path}: has neither the key benchmark nor the key net; set benchmark, such as {{name: permuted}}"
        )
    node |= _as_written(node, raw, text_keys) if isinstance(raw, dict) else {}
    for key, value in node.items():
        if isinstance(raw, dict) and (problem := odd_number(raw.get(key), value)) is not None:
            raise InputError(f"{path}: {key}: {problem}")
    return {"name": path.stem} | node


def text_of(path: Path) -> str:
    """Returns the text of a file in UTF-8, or in UTF-16 with a byte order mark, as some editors write it.

    Raises InputError if the file cannot be read, is no regular file, has more than 300,000 bytes, or is no text.
    """
    content = read_file(path, _MOST_BYTES)
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read as text ({error}); save the file in UTF-8") from error


def _as_written(node: Node, raw: Node, text_keys: Collection[str]) -> Node:
    """Returns the values of text keys, and the mappings of _NAMES, with their texts as they are written in the file.

    node: the file's values. raw: the same values, each as text.
    """
    texts = {key: raw[key] for key in text_keys if isinstance(raw.get(key), str) and node.get(key) is not None}
    for key in _NAMES:
        if isinstance(node.get(key), dict) and isinstance(raw.get(key), dict) and len(node[key]) == len(raw[key]):
            texts[key] = dict(zip(raw[key], node[key].values(), strict=True))
    if isinstance(raw.get("only"), list):
        texts["only"] = raw["only"]
    return texts


def not_yaml(error: Exception) -> str:
    """Returns where and why a text is not valid YAML, as the end of a message that begins with the file's name."""
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    problem = getattr(error, "problem", None) or (str(error).splitlines() or ["?"])[0]
    if not isinstance(error, (yaml.YAMLError, ValueError)):
        problem = f"a value does not fit its YAML tag, or values are nested too deeply ({problem})"
    return f"{where}: not valid YAML: {problem}"
