"""Tables for people: cells as text, and how they are aligned in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class TextTable(NamedTuple):
    """A table for people: headings, and rows of as many cells."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines: the first column left-aligned, the others right-aligned, two spaces between."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [f"{cell:{'>' if column else '<'}{widths[column]}}" for column, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def align_with_rule(table: TextTable) -> str:
    """A table as lines, with a rule below its headings. Columns are aligned as by `align`."""
    headings, rows = table
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    return align([headings, ["-" * width for width in widths], *rows])
