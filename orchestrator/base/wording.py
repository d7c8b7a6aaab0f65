"""Formats values for messages: durations, counts, paths and commands that can be pasted, errors in one line.

Prints messages without the control characters that names and paths may contain. Looks up names that a user has typed in
full or in part.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import TextIO

from orchestrator.base.files import working_folder


def duration(seconds: float | None) -> str:
    """Formats seconds as `42 s`, `3 min 5 s` or `2 h 10 min`. Returns a dash for None."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(number: int, noun: str) -> str:
    """Formats a number of things: `1 file`, `2,000 files`. noun: a singular noun that forms its plural with s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def as_typed(path: Path) -> str:
    """Returns `path` relative to the current folder if it lies in that folder; otherwise returns `path` unchanged."""
    here = working_folder()  # None if the folder was deleted: Ray deletes the folder of a stopped job
    return str(path.relative_to(here)) if here is not None and path.is_relative_to(here) else str(path)


def in_shell(path: Path) -> str:
    """Returns the text that `as_typed` returns for `path`, quoted for a shell."""
    return shlex.quote(as_typed(path))


def command(verb: str, folder: Path) -> str:
    """Returns the command `supsup VERB` for the sweep in `folder`, to be pasted into a shell in the current folder."""
    return f"supsup {verb} {folder.name} output={in_shell(folder.parents[1])}"


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""Matches the escape sequences that set the colour of a terminal. Ray's messages contain such sequences."""


def one_line(text: object) -> str:
    """Returns a text in one line. Unprintable characters, such as line breaks and terminal escapes, are escaped."""
    line = str(text)
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


def printable(text: str) -> str:
    """Returns lines of text for a terminal. Colours are dropped, other unprintable characters are escaped."""
    if text.replace("\n", "").isprintable():
        return text
    parts = re.split("([\n\t])", _COLOUR.sub("", text.replace("\r\n", "\n")))
    return "".join(part if part in ("\n", "\t") else one_line(part) for part in parts)


def say(text: str = "", *, end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
    """Prints a text as `print` does, in the form that `printable` returns. All messages are printed by this function,
    because any of them may contain a name or a path that somebody else has chosen."""
    print(printable(text), end=end, file=file, flush=flush)


def first_line(error: Exception) -> str:
    """Returns the first line of an error's text, or the name of its class if the text is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def matching_names(wanted: str, names: Collection[str]) -> list[str]:
    """Returns the names that `wanted` may stand for, in the order of `names`. Returns an empty list if none fits.

    Tries three rules in turn, and uses the first rule that matches any name. Rule 1: the name equals `wanted`. Rule 2:
    the name without its last `-PART`, such as the hash in a sweep's id, equals `wanted`. Rule 3: the name begins with
    `wanted`.
    """
    return (
        [name for name in names if name == wanted]
        or [name for name in names if name.rpartition("-")[0] == wanted]
        or [name for name in names if name.startswith(wanted)]
    )
