"""Packages that are loaded when something of theirs is first used, for verbs that mostly need nothing of them.

Not importlib.util.LazyLoader: with Python 3.11, `import torch` looks at the module's __spec__, and so loads it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any

_LOADING = threading.Lock()


class _Deferred(ModuleType):
    """Stands for a package until something of it is looked up, and for those who had it by then ever after. Without
    __path__, so that importing a module of it loads it first."""

    def __getattr__(self, name: str) -> Any:
        with _LOADING:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        package = importlib.import_module(self.__name__)  # its lock has other threads wait until it is there
        found = getattr(package, name)
        if not name.startswith("__"):
            setattr(self, name, found)
        return found


def defer(name: str) -> None:
    """Have `import name` give a package that loads itself when an attribute of it is first looked up.

    Does nothing where it is loaded already, or is not there.
    """
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None:
        return
    module = _Deferred(name)
    module.__spec__ = spec
    module.__loader__ = spec.loader
    module.__package__ = spec.name
    module.__file__ = spec.origin
    sys.modules[name] = module


def settle() -> None:
    """From now on load what is imported, though what was deferred until here still is: for libraries, matplotlib among
    them, that take whatever they find in sys.modules for loaded, and look into it."""
    with _LOADING:
        for name in [name for name, module in sys.modules.items() if isinstance(module, _Deferred)]:
            del sys.modules[name]
