"""A user's own modules: imported wherever they are needed, and hashed so that an edit is noticed."""

from __future__ import annotations

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
        try:
            if entry.endswith(".py"):
                _load_file((folder / entry).resolve())
            else:
                if str(folder) not in sys.path:
                    sys.path.append(str(folder))
                importlib.import_module(entry)
        except InputError as error:
            raise InputError(f"imports: {entry}: {error}") from error
        except Exception as error:  # whatever the user's module raises on import is the user's to see
            raise InputError(f"imports: cannot import {entry}: {type(error).__name__}: {error}") from error


def _load_file(path: Path) -> None:
    loaded = sys.modules.get(path.stem)
    if loaded is not None:
        if getattr(loaded, "__file__", None) == str(path):
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

    Covers its module and the modules beside it that it imports, directly or through one another. The
    project's own classes are covered by RECIPE_VERSION instead.
    """
    name = thing.__module__
    if name == _BUILT_IN or name.startswith(_BUILT_IN + "."):
        return None
    first = sys.modules[name]
    folder = Path(str(first.__file__)).resolve().parent
    found: dict[Path, bytes] = {}
    waiting = [first]
    while waiting:
        module = waiting.pop()
        path = Path(str(module.__file__)).resolve()
        if path in found:
            continue
        found[path] = path.read_bytes()
        waiting += [other for other in _imported(module) if _beside(other, folder)]
    digest = hashlib.sha256()
    for path in sorted(found):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + found[path] + b"\0")
    return digest.hexdigest()


def _imported(module: ModuleType) -> list[ModuleType]:
    """Modules that a module's global names come from."""
    others = []
    for value in list(vars(module).values()):
        other = value if isinstance(value, ModuleType) else sys.modules.get(getattr(value, "__module__", None) or "")
        if other is not None and other is not module:
            others.append(other)
    return others


def _beside(module: ModuleType, folder: Path) -> bool:
    """Whether a module's source lies in `folder` or below it, outside installed packages."""
    file = getattr(module, "__file__", None)
    if not file:
        return False
    path = Path(file).resolve()
    return path.suffix == ".py" and folder in path.parents and "site-packages" not in path.parts
