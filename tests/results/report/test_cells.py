"""Cells of text tables: the format of numbers, intervals and missing values."""

from __future__ import annotations

import math

import pandas as pd

from orchestrator.results.report.cells import final_cells, paired_cells, published_cells
from orchestrator.results.report.published import COLUMNS


def test_a_share_is_written_with_two_decimals_and_its_interval_if_it_has_one() -> None:
    final = pd.DataFrame(
        {
            "run": ["a", "b", "c"], "tasks": [5, 5, 5], "accuracy %": [93.666, 90.0, math.nan],
            "accuracy % ±": [0.123, math.nan, math.nan], "masks": [3.25, math.nan, 4.0],
        }
    )  # fmt: skip
    found = final_cells(final)
    assert list(found.headings) == ["run", "tasks", "accuracy %", "masks"]
    assert found.rows == [["a", "5", "93.67 ± 0.12", "3.25"], ["b", "5", "90.00", "–"], ["c", "5", "–", "4"]]


def test_sizes_are_whole_numbers_and_a_missing_size_is_a_dash() -> None:
    sizes = pd.Series([33554432, None], dtype="Int64")
    final = pd.DataFrame({"run": ["a", "b"], "Hopfield bytes per task": sizes})
    assert final_cells(final).rows == [["a", "33554432"], ["b", "–"]]


def test_a_difference_is_written_with_its_sign() -> None:
    columns = ["run", "against", "tasks", "seeds", "difference", "low", "high"]
    found = paired_cells(pd.DataFrame([("b", "a", 5, 3, 0.5, -1.25, 2.0)], columns=columns))
    assert found.rows == [["b", "a", "5", "3", "+0.50 (-1.25 to +2.00)"]]


def test_a_published_accuracy_is_shown_beside_ours() -> None:
    said, source = "not decided (1 seed)", "figure 7"
    cells = [("a", 10, 1, 93.67, 93.0, -0.67, math.nan, math.nan, 0.3, said, source, "PSP", "second_hand", "0")]
    found = published_cells(pd.DataFrame(cells, columns=COLUMNS))
    assert found.rows == [["a", "10", "1", "93.67", "93.00", "-0.67", "±0.3", said, "figure 7 (second-hand)"]]
    assert len(found.headings) == 9
