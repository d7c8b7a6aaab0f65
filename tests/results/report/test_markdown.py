"""The report as Markdown."""

from __future__ import annotations

from orchestrator.results.machines import ComputedOn
from orchestrator.results.report.markdown import to_markdown
from orchestrator.results.text_table import TextTable
from tests.records.samples import ONE_KIND, OTHER_KIND

FINAL = TextTable(["run", "accuracy %"], [["a", "93.67"]])


def test_a_report_has_its_tables_with_rows_and_its_pictures() -> None:
    sections = {"Trials": TextTable(["ended"], []), "Seed by seed": TextTable(["run", "against"], [["b", "a"]])}
    computed = [ComputedOn(("a",), (ONE_KIND,))]
    text = to_markdown("small-123456", FINAL, sections, 0, ["accuracy_by_task.png"], computed)
    assert text.startswith("# small-123456\n\n| run | accuracy % |\n| --- | --- |\n| a | 93.67 |\n")
    assert "## Seed by seed\n\n| run | against |\n| --- | --- |\n| b | a |\n" in text
    assert "Trials" not in text
    assert text.endswith("![Accuracy by task](accuracy_by_task.png)\n")
    assert "Unfinished" not in text
    assert "machine kind" not in text


def test_names_cannot_be_html_links_or_cells() -> None:
    name = "<script>x</script> [a](javascript:b) | c `d` *e* &f\n# g"
    text = to_markdown("small-123456", TextTable(["run"], [[name]]), {"Trials": TextTable([name], [["1"]])}, 0, [], [])
    shown = r"&lt;script&gt;x&lt;/script&gt; \[a\](javascript:b) \| c \`d\` \*e\* &amp;f\\n# g"
    assert f"| {shown} |\n" in text
    assert text.count(shown) == 2
    assert "<" not in text


def test_an_unfinished_sweep_says_so() -> None:
    assert "**Unfinished.** Runs that lack evaluation points: 3." in to_markdown("small-123456", FINAL, {}, 3, [], [])


def test_runs_that_several_machine_kinds_computed_are_named_with_these_kinds() -> None:
    computed = [ComputedOn(("a seed=0", "b seed=0"), (ONE_KIND, OTHER_KIND)), ComputedOn(("a seed=1",), (OTHER_KIND,))]
    lines = to_markdown("small-123456", FINAL, {}, 0, [], computed).splitlines()
    (told,) = (line for line in lines if line.startswith("**More than one machine kind.** a seed=0, b seed=0."))
    assert "only within floating-point tolerance" in told
    assert [line for line in lines if line.startswith("- ")] == [f"- {ONE_KIND}", f"- {OTHER_KIND}"]
