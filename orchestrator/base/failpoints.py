"""Named moments at which a test may interfere: kill the process, or raise an error as a full disk would.

Nothing happens at a failpoint unless a function was set for it in this process. Tests set them; the program never does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Point = Literal[
    "round_opened", "deciding", "decided", "committing", "in_commit", "committed",
    "job_begins", "segment_begins", "job_done", "writing_artifact",
]  # fmt: skip

_functions: dict[Point, Callable[[object], None]] = {}


def reach(point: Point, subject: object = None) -> None:
    """Call the function that is set for this failpoint, if any. subject: what the process is at work on."""
    if point in _functions:
        _functions[point](subject)


def set_failpoint(point: Point, function: Callable[[object], None] | None) -> None:
    """Set the function of a failpoint in this process; None removes it."""
    if function is None:
        _functions.pop(point, None)
    else:
        _functions[point] = function
