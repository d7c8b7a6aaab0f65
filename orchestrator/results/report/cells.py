"""Converts a report's data frames to tables of strings: rounds numbers, and shows missing values as dashes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestrator.results.text_table import TextTable

if TYPE_CHECKING:
    import pandas as pd


def final_cells(final: pd.DataFrame) -> TextTable:
    """Converts a `final_table` to a table of strings. A value and its interval share a cell, such as `93.67 ± 0.12`."""
    headings = [column for column in final.columns if not column.endswith(" ±")]
    rows = []
    for record in final.to_dict("records"):
        cells = []
        for heading in headings:
            value, half = record[heading], record.get(f"{heading} ±", math.nan)
            if isinstance(value, float) and heading.endswith("%"):
                text = "–" if math.isnan(value) else f"{value:.2f}"
                cells.append(text if math.isnan(half) else f"{text} ± {half:.2f}")
            elif heading.endswith("bytes per task"):
                cells.append(str(value) if isinstance(value, int) else "–")
            elif isinstance(value, float):
                cells.append("–" if math.isnan(value) else f"{value:g}")
            else:
                cells.append(str(value))
        rows.append(cells)
    return TextTable(headings, rows)


def published_cells(published: pd.DataFrame) -> TextTable:
    """Converts a `published_table` to a table of strings. A difference and its interval share a cell."""
    rows = []
    for record in published.to_dict("split")["data"]:
        run, tasks, seeds, theirs, ours, difference, low, high, tolerance, verdict, source, _, known, _ = record
        interval = "" if math.isnan(low) else f" ({low:+.2f} to {high:+.2f})"
        cells = (run, tasks, seeds, f"{theirs:.2f}", f"{ours:.2f}", f"{difference:+.2f}{interval}", f"±{tolerance:g}")
        rows.append([*map(str, cells), verdict, f"{source} ({known.replace('_', '-')})"])
    headings = ["run", "tasks", "seeds", "published %", "ours %", "difference", "tolerance", "verdict", "source"]
    return TextTable(headings, rows)


def paired_cells(paired: pd.DataFrame) -> TextTable:
    """Converts a `paired_table` to a table of strings. A difference and its interval share a cell."""
    rows = [
        [run, against, str(tasks), str(seeds), f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"]
        for run, against, tasks, seeds, mean, low, high in paired.to_dict("split")["data"]
    ]
    return TextTable(["run", "against", "tasks", "seeds", "difference in points"], rows)
