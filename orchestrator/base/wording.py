"""What people read: durations, paths and commands as one would type them, errors in one line."""

from __future__ import annotations

import shlex
from pathlib import Path


def duration(seconds: float | None) -> str:
    """Seconds for people: 42 s, 3 min 5 s, 2 h 10 min; a dash for None."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def as_typed(path: Path) -> str:
    """A path as a person here would type it."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # deleted under this process, as the folder of a job that is stopped
        return str(path)
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def in_shell(path: Path) -> str:
    """A path as a person here would type it in a shell."""
    return shlex.quote(as_typed(path))


def command(verb: str, folder: Path) -> str:
    """The command on a sweep, by its folder, as it can be typed in a shell here."""
    return f"supsup {verb} {folder.name} output={in_shell(folder.parents[1])}"


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
