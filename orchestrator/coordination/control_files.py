"""Requests to a running training group, as files that every process of its sweep sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from orchestrator.base.files import write_atomically
from orchestrator.base.output_folder import GroupFolder


@dataclass(frozen=True)
class Requests:
    """What the user or a search may request of a group while it runs: to pause the sweep, to stop the group, to cancel
    single tasks. Each is a function that returns the request as it stands now."""

    pause: Callable[[], bool] = lambda: False
    stop: Callable[[], bool] = lambda: False
    cancel: Callable[[], Set[int]] = frozenset

    @classmethod
    def from_files(cls, folder: GroupFolder) -> Requests:
        """Requests by the control files of a training group."""
        return cls(folder.sweep.pause_file.exists, folder.stop_file.exists, CancelFile(folder.cancel_file).read)


@dataclass(frozen=True)
class CancelFile:
    """The file that lists the tasks a group is to cancel, one number a line."""

    path: Path

    def read(self) -> Set[int]:
        """The numbers of the tasks."""
        try:
            return {int(line) for line in self.path.read_text().splitlines() if line.isdecimal()}
        except FileNotFoundError:
            return frozenset()

    def add(self, tasks: Iterable[int]) -> None:
        """Request that more tasks are cancelled."""
        self._write(self.read() | set(tasks))

    def remove(self, tasks: Iterable[int]) -> None:
        """Withdraw the request for these tasks; for all when none is named."""
        named = set(tasks)
        self._write(self.read() - named if named else frozenset())

    def _write(self, tasks: Set[int]) -> None:
        if tasks:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, "".join(f"{task}\n" for task in sorted(tasks)).encode())
        else:
            self.path.unlink(missing_ok=True)


NO_REQUESTS = Requests()
"""Where nobody requests anything."""
