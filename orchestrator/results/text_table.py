"""Aligned tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines: the first column to the left, the others to the right, two spaces between."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [f"{cell:{'>' if column else '<'}{widths[column]}}" for column, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def align_with_rule(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """As `align`, with headings and a rule below them."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    return align([headings, ["-" * width for width in widths], *rows])
