"""Control files: requests to a running training group, written by other processes on the same output folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from orchestrator.base.files import write_atomically
from orchestrator.base.output_folder import GroupFolder


@dataclass(frozen=True)
class Requests:
    """The requests that the user or a search can make to a running group.

    Each field is a function that returns the current request: whether to pause the sweep, whether to stop the group,
    and the numbers of the tasks to cancel.
    """

    pause: Callable[[], bool] = lambda: False
    stop: Callable[[], bool] = lambda: False
    cancel: Callable[[], Set[int]] = frozenset

    @classmethod
    def from_files(cls, folder: GroupFolder) -> Requests:
        """Returns requests that are read from the control files of a training group."""
        return cls(folder.sweep.pause_file.exists, folder.stop_file.exists, CancelFile(folder.cancel_file).read)


@dataclass(frozen=True)
class CancelFile:
    """The file that lists the tasks that a group must cancel, with one task number per line."""

    path: Path

    def read(self) -> Set[int]:
        """Returns the numbers of the tasks in the file."""
        try:
            return {int(line) for line in self.path.read_text().splitlines() if line.isdecimal()}
        except FileNotFoundError:
            return frozenset()

    def add(self, tasks: Iterable[int]) -> None:
        """Adds tasks to the file."""
        self._write(self.read() | set(tasks))

    def remove(self, tasks: Iterable[int]) -> None:
        """Removes these tasks from the file, or all tasks if `tasks` is empty."""
        named = set(tasks)
        self._write(self.read() - named if named else frozenset())

    def _write(self, tasks: Set[int]) -> None:
        if tasks:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, "".join(f"{task}\n" for task in sorted(tasks)).encode())
        else:
            self.path.unlink(missing_ok=True)


NO_REQUESTS = Requests()
"""Requests for groups that nobody can pause, stop or cancel."""
