"""Writes the settings of a sweep as a sweep file."""

from __future__ import annotations

from pathlib import Path

import yaml

from orchestrator.base.plain_values import Node
from orchestrator.spec.sweep_config import PAPER, defaults


def sweep_text(config: Node, imports_folder: Path | None) -> str:
    """Returns the text of a sweep file with the settings of `config` that differ from the defaults.

    config: a sweep's settings after the changes of its scale. The file has the scale `paper`, so that these changes are
    not applied again. imports_folder: `imports` of modules in this folder become absolute paths, so that the file can
    be run from any folder; None leaves `imports` unchanged. The names of installed modules stay unchanged.
    """
    imports = config["imports"]
    if imports_folder is not None:
        imports = [_named_by_path(entry, imports_folder) for entry in imports]
    node = config | {"scale": PAPER, "imports": imports}
    kept = {"name": node["name"], **_changed(node, defaults())}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def _named_by_path(entry: str, folder: Path) -> str:
    """Returns an entry of `imports` as an absolute path if it names a module in `folder`; else returns it unchanged."""
    file = folder / (entry if entry.endswith(".py") else f"{entry}.py")
    return str(file.absolute()) if entry.endswith(".py") or file.is_file() else entry


def _changed(node: Node, default: Node) -> Node:
    """Returns the settings that differ from the defaults. A component (a mapping with a name) is kept whole."""
    kept: Node = {}
    for key, value in node.items():
        is_whole = not isinstance(value, dict) or not isinstance(default.get(key), dict) or "name" in value
        part = value if is_whole else _changed(value, default[key])
        if value != default.get(key) and part != {}:
            kept[key] = part
    return kept
