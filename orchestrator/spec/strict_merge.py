"""Plain values into dataclasses, strictly: every key is known, every value of its type, every error names the key."""

from __future__ import annotations

import math
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from supsup_core.errors import InputError
from supsup_core.registry import nearest

Node = dict[str, Any]
"""Plain values by key, as a config file holds them."""


def merge(schema: Any, node: Any, where: str, path: str = "") -> DictConfig:
    """`node` merged into a dataclass's (or a structured config's) fields; unknown keys are errors.

    An error's text begins with `where`, if any, and the key's full name below `path`.
    """
    base = OmegaConf.structured(schema) if isinstance(schema, type) else schema
    OmegaConf.set_readonly(base, None)
    for child in base:
        inner = base._get_node(child)
        if isinstance(inner, DictConfig):
            OmegaConf.set_readonly(inner, None)
    try:
        return cast(DictConfig, OmegaConf.merge(base, node))
    except OmegaConfBaseException as error:
        raise InputError(_explain(error, where, path)) from error
    except TypeError as error:
        lists = [str(key) for key in node if OmegaConf.is_list(node._get_node(key)) and OmegaConf.is_dict(base[key])]
        problem = f"{lists[0]}: must be a mapping, not a list" if lists else f"a value has the wrong shape ({error})"
        raise InputError(": ".join(part for part in (where, path, problem) if part)) from error


def _explain(error: OmegaConfBaseException, where: str, path: str) -> str:
    key = error.full_key or ""
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "AnyNode is not a" in message:
        message = f"must be a {'list' if 'ListConfig' in message else 'mapping'}"
    if "$VALUE" in message:
        message = "a value in this list has the wrong type"
    if isinstance(error, ConfigKeyError):
        parent = error.parent_node
        known = sorted(str(k) for k in parent) if isinstance(parent, DictConfig) else []
        message = f"unknown key{nearest(key.rpartition('.')[2], known)}; there are: {', '.join(known)}"
    full = ".".join(part for part in (path, key) if part)
    return ": ".join(part for part in (where, full, message) if part)


def check_finite(value: Any, where: str, path: str = "") -> None:
    """InputError for a number that is none, anywhere in plain values; `where` they are, unless that is said anyway."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{f'{where}: ' if where else ''}{path}: must be a finite number, not {value}")
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        check_finite(part, where, f"{path}.{key}" if path else str(key))
