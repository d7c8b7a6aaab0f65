"""A user's own modules: imported wherever they are needed, and hashed so that an edit is noticed."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from supsup_core.errors import InputError

_BUILT_IN = "supsup_core"


def load(imports: Sequence[str], folder: Path) -> None:
    """Import every entry, so that its registrations exist in this process.

    An entry is a dotted module name (looked up from `folder` too) or the path of a .py file, relative to
    `folder`, the folder of the sweep file. InputError naming the entry when it cannot be imported.
    """
    for entry in imports:
        file = (folder / entry).resolve() if entry.endswith(".py") else None
        beside = str(file.parent if file else folder)
        if beside not in sys.path:
            sys.path.append(beside)
        try:
            if file:
                _load_file(file)
            else:
                importlib.import_module(entry)
        except InputError as error:
            raise InputError(f"imports: {entry}: {error}") from error
        except Exception as error:  # whatever the user's module raises on import is the user's to see
            raise InputError(f"imports: cannot import {entry}: {type(error).__name__}: {error}") from error


def _load_file(path: Path) -> None:
    loaded = sys.modules.get(path.stem)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        if file and (file == str(path) or (path.is_file() and Path(file).read_bytes() == path.read_bytes())):
            return
        raise InputError(f"a module called {path.stem!r} is loaded already; rename the file")
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise


def source_digest(thing: Any) -> str | None:
    """SHA-256 of the source that defines a user's class or function; None for this project's own.

    Covers its module and the modules below its top folder that it imports, wherever in their text, directly
    or through one another. The project's own classes are covered by RECIPE_VERSION instead.
    """
    name = thing.__module__
    if name == _BUILT_IN or name.startswith(_BUILT_IN + "."):
        return None
    digest = hashlib.sha256()
    for path, text in _closure(sys.modules[name]).items():
        digest.update(str(path).encode() + b"\0" + text + b"\0")
    return digest.hexdigest()


def sources(entries: Sequence[str], folder: Path) -> dict[Path, bytes]:
    """The text of the files that `imports` names, and of the modules beside them that these import, by their paths
    below their top folders. They must be loaded. InputError where an entry is no file, or two files have one path."""
    found: dict[Path, bytes] = {}
    for entry in entries:
        if not entry.endswith(".py"):
            raise InputError(f"imports: {entry} is not a .py file, which could be taken along; name the file")
        for path, text in _closure(sys.modules[(folder / entry).stem]).items():
            if found.setdefault(path, text) != text:
                raise InputError(f"imports: two modules are called {path}; rename one of them")
    return found


def _closure(first: ModuleType) -> dict[Path, bytes]:
    """The source of a module, and of the modules below its top folder that it imports, directly or through one
    another, by path below that folder, in order."""
    top = Path(str(first.__file__)).resolve().parents[first.__name__.count(".")]
    found: dict[Path, bytes] = {}
    waiting = [first]
    while waiting:
        module = waiting.pop()
        path = Path(str(module.__file__)).resolve()
        if path not in found:
            found[path] = path.read_bytes()
            waiting += [other for other in _imported(module, found[path]) if _within(other, top)]
    return {path.relative_to(top): found[path] for path in sorted(found)}


def _imported(module: ModuleType, source: bytes) -> list[ModuleType]:
    """The loaded modules that a module's import statements name."""
    names: set[str] = set()
    package = module.__package__ or ""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package or None)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return [sys.modules[name] for name in sorted(names) if name in sys.modules]


def _within(module: ModuleType, top: Path) -> bool:
    """Whether a module's source lies below `top`, outside installed packages."""
    file = getattr(module, "__file__", None)
    if not file:
        return False
    path = Path(file).resolve()
    return path.suffix == ".py" and top in path.parents and "site-packages" not in path.parts
