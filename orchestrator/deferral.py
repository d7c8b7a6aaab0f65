"""Packages that are loaded when something of theirs is first used, for verbs that mostly need nothing of them.

Not importlib.util.LazyLoader: with Python 3.11, `import torch` looks at the module's __spec__, and so loads it.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any


class _Deferred(ModuleType):
    """A package that is not loaded yet. Without __path__, so that importing a module of it loads it first."""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]
        self.__path__ = spec.submodule_search_locations or []
        spec.loader.exec_module(self)
        return getattr(self, name)


def defer(name: str) -> None:
    """Have `import name` give a package that loads itself when an attribute of it is first looked up.

    Does nothing where it is loaded already, or is not there. Not for programs of several threads.
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
