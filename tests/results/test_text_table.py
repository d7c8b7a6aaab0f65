"""Text tables for a terminal."""

from __future__ import annotations

from orchestrator.results.text_table import TextTable, align, align_with_rule


def test_the_first_column_is_aligned_left_and_the_others_right() -> None:
    assert align([["a", "1"], ["long", "100"]]) == "a       1\nlong  100"


def test_a_rule_is_as_wide_as_each_column() -> None:
    table = TextTable(["run", "accuracy %"], [["SupSup GG", "93.67"]])
    assert align_with_rule(table).splitlines() == [
        "run        accuracy %",
        "---------  ----------",
        "SupSup GG       93.67",
    ]


def test_a_table_without_rows_shows_its_headings() -> None:
    assert align_with_rule(TextTable(["run", "seeds"], [])) == "run  seeds\n---  -----"
