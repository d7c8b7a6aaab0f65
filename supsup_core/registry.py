"""Names for the things a config may ask for, each registered beside the code that defines it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Generic, TypeVar

from supsup_core.errors import InputError

T = TypeVar("T")


def nearest(name: str, names: list[str]) -> str:
    """`; did you mean X?` for the closest of `names`, or nothing when none is close."""
    begun = [known for known in names if name and known.startswith(name)]
    close = begun or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


class Registry(Generic[T]):
    """A mapping from a config name to an object of one kind.

    A second registration of a name raises, so that no import order can decide what a name means.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, *names: str) -> Callable[[T], T]:
        """Decorator: enter the object under `names`, the first of which is its own name."""

        def enter(entry: T) -> T:
            for name in names:
                if name in self._entries:
                    raise InputError(f"the {self.kind} {name!r} is registered twice; give the second another name")
                self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        """The entry called `name`; InputError listing those there are when it is unknown."""
        if name not in self._entries:
            names = self.names()
            raise InputError(f"unknown {self.kind} {name!r}{nearest(name, names)}; there are: {', '.join(names)}")
        return self._entries[name]

    def under(self, key: str, name: str) -> T:
        """The entry called `name`; the InputError begins with `key`, which asked for it."""
        try:
            return self[name]
        except InputError as error:
            raise InputError(f"{key}: {error}") from error

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        return sorted(self._entries)

    def name_of(self, entry: T) -> str:
        """The first name `entry` was registered under."""
        for name, candidate in self._entries.items():
            if candidate is entry:
                return name
        raise InputError(f"this {self.kind} is not registered: {entry!r}")
