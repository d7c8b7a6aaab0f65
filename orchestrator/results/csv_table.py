"""Writes tables as CSV, so that a spreadsheet program runs no text of a table as a formula."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from orchestrator.base.wording import one_line

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = tuple("=+-@＝＋－＠")
"""The characters with which a formula begins."""


def to_csv(table: pd.DataFrame) -> str:
    """Returns a table as CSV. `text_cell` converts texts and headings. Numbers are written unchanged."""
    written = table.rename(columns=_cell)
    for number, kind in enumerate(table.dtypes):
        if kind.kind not in "biuf":
            written.isetitem(number, [_cell(value) for value in table.iloc[:, number]])
    text: str = written.to_csv(index=False)
    return text


def text_cell(text: str) -> str:
    """Returns a text in one line, with an apostrophe before it if a spreadsheet program would run it as a formula."""
    line = one_line(text)
    if line.startswith(_FORMULA):
        with contextlib.suppress(ValueError):
            float(line)
            return line
        return f"'{line}"
    return line


def _cell(value: Any) -> Any:
    return text_cell(value) if isinstance(value, str) else value
