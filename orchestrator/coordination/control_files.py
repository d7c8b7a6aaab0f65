"""What is asked of a training group while it runs, by files that every process that works for its sweep sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.base.files import write_atomically


@dataclass(frozen=True)
class Asked:
    """What the user, or a search, may ask of a group while it runs: that the sweep pauses, that the group is given up,
    or that single tasks of it are."""

    pause: Callable[[], bool] = lambda: False
    stop: Callable[[], bool] = lambda: False
    cancel: Callable[[], Set[int]] = frozenset

    @classmethod
    def by_files(cls, settings: dict[str, Any]) -> Asked:
        """Asked by the files that the settings of a group name."""
        return cls(Path(settings["pause"]).exists, Path(settings["stop"]).exists, Cancelled(Path(settings["cancel"])))


@dataclass(frozen=True)
class Cancelled:
    """The file of the tasks that a group is to give up, one number a line."""

    path: Path

    def __call__(self) -> Set[int]:
        try:
            return {int(line) for line in self.path.read_text().splitlines() if line.isdecimal()}
        except FileNotFoundError:
            return frozenset()

    def add(self, tasks: Iterable[int]) -> None:
        """Ask for more tasks to be given up."""
        self._write(self() | set(tasks))

    def remove(self, tasks: Iterable[int]) -> None:
        """Ask for them no more; without any, for none."""
        self._write(self() - set(tasks) if tasks else frozenset())

    def _write(self, tasks: Set[int]) -> None:
        if tasks:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, "".join(f"{task}\n" for task in sorted(tasks)).encode())
        else:
            self.path.unlink(missing_ok=True)


NOTHING = Asked()
