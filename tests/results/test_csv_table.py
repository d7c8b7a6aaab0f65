"""CSV tables: no text is a formula, and numbers stay numbers."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.results.csv_table import text_cell, to_csv


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=cmd|' /C calc'!A1", "'=cmd|' /C calc'!A1"),
        ("+SUM(A1)", "'+SUM(A1)"),
        ("-SUM(A1)", "'-SUM(A1)"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "\\t=1"),
        ("\r=1", "\\r=1"),
        ("＝1", "'＝1"),
        ("-0.5", "-0.5"),
        ("+1e-4", "+1e-4"),
        ("-", "'-"),
        ("", ""),
        ("GNu = entropy", "GNu = entropy"),
    ],
)
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text: str, cell: str) -> None:
    assert text_cell(text) == cell


def test_numbers_and_missing_values_are_written_as_they_are() -> None:
    mixed = pd.Series([-0.5, "=1", None], dtype=object)
    table = pd.DataFrame({"run": ["a", "-b", "=c"], "value": [-1.5, 2.0, float("nan")], "=x": mixed})
    table["number"] = pd.array([-1, None, 3], dtype="Int64")
    assert to_csv(table) == "run,value,'=x,number\na,-1.5,-0.5,-1\n'-b,2.0,'=1,\n'=c,,,3\n"
    assert list(table["run"]) == ["a", "-b", "=c"]  # the table itself is unchanged


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_no_cell_of_a_file_begins_a_formula(texts: list[str]) -> None:
    written = to_csv(pd.DataFrame({"run": texts}))
    read = pd.read_csv(io.StringIO(written), keep_default_na=False, dtype=str, skip_blank_lines=False)
    assert len(read) == len(texts)
    for cell in read["run"]:
        assert not cell.startswith(("=", "@", "\t", "\r"))
        if cell.startswith(("+", "-")):
            float(cell)
