"""Registries map a name in a config to a class or function. Each entry is registered where it is defined."""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from supsup_core.errors import InputError, prefix_errors

T = TypeVar("T")


class ChecksFields(ABC):
    """Interface of a config class that checks its own fields.

    A base class such as Benchmark first checks the fields that all its subclasses have, then calls `check_fields`.
    """

    @abstractmethod
    def check_fields(self) -> None:
        """Raise InputError if a field is invalid. The message begins with the field's name and names a remedy."""


def nearest(name: str, names: list[str]) -> str:
    """Returns the text ` (did you mean 'X'?)`, where X is the closest of `names`, or an empty text if none is close."""
    begun = [known for known in names if name and known.startswith(name)]
    close = begun or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _missing_parts(cls: type) -> str:
    """The abstract methods that `cls` does not implement and the ClassVars that it does not set, joined by commas."""
    variables = {
        name
        for base in cls.__mro__
        for name, annotation in vars(base).get("__annotations__", {}).items()
        if "ClassVar[" in str(annotation) and not hasattr(cls, name)
    }
    return ", ".join(sorted(variables | getattr(cls, "__abstractmethods__", frozenset())))


class Registry(Generic[T]):
    """A mapping from names in a config to objects of one kind, for example to all methods.

    Registering a name twice raises InputError, because otherwise the order of imports would decide which entry the name
    means.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, *names: str) -> Callable[[T], T]:
        """A decorator that registers an object under `names`: its canonical name, then its aliases.

        Raises InputError if a name is already registered, or if a class lacks methods or class variables that its base
        class requires.
        """

        def enter(entry: T) -> T:
            if inspect.isclass(entry) and (missing := _missing_parts(entry)):
                raise InputError(f"the {self.kind} {names[0]!r} ({entry.__qualname__}) must define: {missing}")
            for name in names:
                if name in self._entries:
                    raise InputError(f"the {self.kind} {name!r} is registered twice; give one of the two another name")
                self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        """Returns the entry called `name`. Raises InputError, which lists the known names, if the name is unknown."""
        if name not in self._entries:
            names = self.names()
            raise InputError(f"unknown {self.kind} {name!r}{nearest(name, names)}; choose one of: {', '.join(names)}")
        return self._entries[name]

    def under(self, key: str, name: str) -> T:
        """Returns the entry called `name`. The InputError for an unknown name begins with the config key `key`."""
        with prefix_errors(f"{key}: "):
            return self[name]

    def names(self) -> list[str]:
        """All registered names and aliases, sorted."""
        return sorted(self._entries)

    def name_of(self, entry: T) -> str:
        """The canonical name of an entry. Raises InputError if the entry is not registered."""
        for name, candidate in self._entries.items():
            if candidate is entry:
                return name
        raise InputError(f"this {self.kind} is not registered: {entry!r}")
