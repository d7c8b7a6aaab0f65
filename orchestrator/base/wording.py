"""Times in words."""

from __future__ import annotations


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
