"""Reads and writes control files: requests to running training groups, and notes about the resources they wait for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from orchestrator.base.files import write_atomically
from orchestrator.base.output_folder import GroupFolder, SweepFolder


@dataclass(frozen=True)
class Requests:
    """The requests of the user or of a search to a running training group.

    Each field is a function that returns the current request. `pause`: whether to pause the sweep. `stop`: whether to
    stop the group. `cancel`: the numbers of the tasks to cancel.
    """

    pause: Callable[[], bool] = lambda: False
    stop: Callable[[], bool] = lambda: False
    cancel: Callable[[], Set[int]] = frozenset

    @classmethod
    def from_files(cls, folder: GroupFolder) -> Requests:
        """Returns requests whose functions read the control files of a training group at each call."""
        return cls(folder.sweep.pause_file.exists, folder.stop_file.exists, CancelFile(folder.cancel_file).read)


@dataclass(frozen=True)
class CancelFile:
    """The file that lists the tasks that a group must cancel, with one task number per line.

    The file does not exist if no task must be cancelled.
    """

    path: Path

    def read(self) -> Set[int]:
        """Returns the task numbers in the file, or an empty set if there is no file. Ignores lines without a number."""
        try:
            return {int(line) for line in self.path.read_text().splitlines() if line.isdecimal()}
        except FileNotFoundError:
            return frozenset()

    def add(self, tasks: Iterable[int]) -> None:
        """Adds task numbers to the file, and creates the file if necessary."""
        self._write(self.read() | set(tasks))

    def remove(self, tasks: Iterable[int]) -> None:
        """Removes these task numbers from the file, or all numbers if `tasks` is empty."""
        named = set(tasks)
        self._write(self.read() - named if named else frozenset())

    def _write(self, tasks: Set[int]) -> None:
        if tasks:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, "".join(f"{task}\n" for task in sorted(tasks)).encode())
        else:
            self.path.unlink(missing_ok=True)


def waiting_texts(folder: SweepFolder) -> list[str]:
    """Returns the texts of a sweep's waiting files, which say for which cluster resources its training groups wait.

    Unprintable characters, for example of a quoted cloud error, are removed, so each text is one line.
    """
    found = []
    for file in folder.waiting_files():
        with contextlib.suppress(OSError):  # the wait has just ended
            found.append("".join(char for char in file.read_text(errors="replace") if char.isprintable()))
    return [text for text in found if text]


def forget_waiting(folder: SweepFolder) -> None:
    """Deletes a sweep's waiting files."""
    for file in folder.waiting_files():
        file.unlink(missing_ok=True)


NO_REQUESTS = Requests()
"""Requests that never pause, stop or cancel anything."""
