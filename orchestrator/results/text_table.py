"""Aligns tables of text cells for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class TextTable(NamedTuple):
    """A table of text cells. Each row has as many cells as there are headings."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def align(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of cells as lines of text. The first column is left-aligned, and the others are right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [f"{cell:{'>' if column else '<'}{widths[column]}}" for column, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def align_with_rule(table: TextTable) -> str:
    """Returns a table as lines of text, with a line of dashes below its headings. Columns are aligned as in `align`."""
    headings, rows = table
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    return align([headings, ["-" * width for width in widths], *rows])
