"""Imports the user's own modules and hashes their source. All processes import these modules.

Content keys include the hashes.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from supsup_core.errors import InputError, prefix_errors

_BUILT_IN = "supsup_core"
"""The project's own package, whose source is not hashed."""


def load(imports: Sequence[str], folder: Path) -> None:
    """Imports the user's modules, which register the user's classes in this process.

    imports: dotted module names, or paths of .py files relative to `folder`. folder: the folder of the sweep file.
    Adds to sys.path the folder of each .py file, and `folder` if there are dotted names. Raises InputError, which names
    the entry, if a module cannot be imported.
    """
    for entry in imports:
        file = (folder / entry).resolve() if entry.endswith(".py") else None
        parent = str(file.parent if file else folder)
        if parent not in sys.path:
            sys.path.append(parent)
        with prefix_errors(f"imports: {entry}: "):
            try:
                if file:
                    _load_file(file)
                else:
                    importlib.import_module(entry)
            except InputError:
                raise
            except Exception as error:  # a user's module may raise anything when it is imported
                raise InputError(f"cannot be imported: {type(error).__name__}: {error}") from error


def _load_file(path: Path) -> None:
    """Imports a .py file as a module named after the file.

    Does nothing if this file, or a file with the same content, is already imported under that name. Raises InputError
    if another module has the name, or if the file does not exist.
    """
    loaded = sys.modules.get(path.stem)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        if file and (file == str(path) or (path.is_file() and Path(file).read_bytes() == path.read_bytes())):
            return
        raise InputError(f"Python has already loaded another module called {path.stem!r}; rename the file")
    if not path.is_file():
        raise InputError(f"no such file: {path}; name a .py file, relative to the folder of the sweep file")
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


def source_digest(thing: type[object] | Callable[..., object]) -> str | None:
    """Returns the SHA-256 of the source of a user's class or function, or None for a class or function of this project.

    The source includes the module that defines `thing`, and all modules below the same top folder that this module
    imports, directly or indirectly. The source of this project is not hashed. Developers increase RECIPE_VERSION when a
    change of the code makes training produce other bits.
    """
    name = thing.__module__
    if name == _BUILT_IN or name.startswith(_BUILT_IN + "."):
        return None
    digest = hashlib.sha256()
    for path, text in _sources_from(sys.modules[name]).items():
        digest.update(str(path).encode() + b"\0" + text + b"\0")
    return digest.hexdigest()


def sources(entries: Sequence[str], folder: Path) -> dict[Path, bytes]:
    """Returns the source of the user's modules and of the modules that they import.

    An exported run contains this source. entries: the `imports` of a sweep, which must be loaded already. The keys of
    the result are paths relative to the top folders of the modules. Raises InputError if an entry is not a .py file, or
    if two different files have the same path.
    """
    found: dict[Path, bytes] = {}
    for entry in entries:
        if not entry.endswith(".py"):
            raise InputError(
                f"imports: {entry} is not a .py file, and only .py files can be exported with a run; "
                "name the file, such as my_methods.py"
            )
        for path, text in _sources_from(sys.modules[(folder / entry).stem]).items():
            if found.setdefault(path, text) != text:
                raise InputError(f"imports: two modules are called {path}; rename one of them")
    return found


def _sources_from(first: ModuleType) -> dict[Path, bytes]:
    """Returns the source of a module, and of all modules below the same top folder that the module imports, directly or
    indirectly.

    The keys of the result are paths relative to the top folder, sorted. The top folder is the folder that contains the
    module or, if the module is in a package, its outermost package.
    """
    top = Path(str(first.__file__)).resolve().parents[first.__name__.count(".")]
    found: dict[Path, bytes] = {}
    waiting = [first]
    while waiting:
        module = waiting.pop()
        path = Path(str(module.__file__)).resolve()
        if path not in found:
            found[path] = path.read_bytes()
            waiting += [other for other in _imported(module, found[path]) if _is_below(other, top)]
    return {path.relative_to(top): found[path] for path in sorted(found)}


def _imported(module: ModuleType, source: bytes) -> list[ModuleType]:
    """Returns the loaded modules that are named in the import statements of a module, anywhere in its source."""
    names: set[str] = set()
    package = module.__package__ or ""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package or None)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return [sys.modules[name] for name in sorted(names) if name in sys.modules]


def _is_below(module: ModuleType, top: Path) -> bool:
    """Returns whether the source of a module is a file below `top` and is not part of an installed package."""
    file = getattr(module, "__file__", None)
    if not file:
        return False
    path = Path(file).resolve()
    return path.suffix == ".py" and top in path.parents and "site-packages" not in path.parts
