"""The report as Markdown."""

from __future__ import annotations

from orchestrator.results.report.markdown import to_markdown
from orchestrator.results.text_table import TextTable

FINAL = TextTable(["run", "accuracy %"], [["a", "93.67"]])


def test_a_report_has_its_tables_with_rows_and_its_pictures() -> None:
    sections = {"Trials": TextTable(["ended"], []), "Seed by seed": TextTable(["run", "against"], [["b", "a"]])}
    text = to_markdown("small-123456", FINAL, sections, 0, ["accuracy_by_task.png"])
    assert text.startswith("# small-123456\n\n| run | accuracy % |\n| --- | --- |\n| a | 93.67 |\n")
    assert "## Seed by seed\n\n| run | against |\n| --- | --- |\n| b | a |\n" in text
    assert "Trials" not in text
    assert text.endswith("![Accuracy by task](accuracy_by_task.png)\n")
    assert "Unfinished" not in text


def test_an_unfinished_sweep_says_so() -> None:
    assert "**Unfinished.** Runs that lack evaluation points: 3." in to_markdown("small-123456", FINAL, {}, 3, [])
