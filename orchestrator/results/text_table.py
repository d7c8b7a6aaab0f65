"""Aligns tables of text cells for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.base.wording import one_line


class TextTable(NamedTuple):
    """A table of text cells. Each row has as many cells as there are headings."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def align(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of cells as lines of text. The first column is left-aligned, and the others are right-aligned."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [f"{cell:{'>' if column else '<'}{widths[column]}}" for column, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def align_with_rule(table: TextTable) -> str:
    """Returns a table as lines of text, with a line of dashes below its headings. Columns are aligned as in `align`."""
    headings, rows = table
    widths = [max(len(one_line(row[column])) for row in (headings, *rows)) for column in range(len(headings))]
    return align([headings, ["-" * width for width in widths], *rows])
