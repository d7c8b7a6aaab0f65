"""A clock that a test sets."""

from __future__ import annotations


class Clock:
    """Returns the time `now`, in seconds, instead of the real time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
