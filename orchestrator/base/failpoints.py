"""Failpoints: named places in the code where a test can kill the process or raise an error (such as a full disk).

Only tests set functions for failpoints. A failpoint without a function does nothing.
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
    """Calls the function that is set for this failpoint, if any.

    subject: the function's argument, such as the key of the artifact that is about to be written.
    """
    if point in _functions:
        _functions[point](subject)


def set_failpoint(point: Point, function: Callable[[object], None] | None) -> None:
    """Sets the function that this process calls at a failpoint. If `function` is None, removes the earlier function."""
    if function is None:
        _functions.pop(point, None)
    else:
        _functions[point] = function
