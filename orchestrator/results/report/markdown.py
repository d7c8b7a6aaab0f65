"""Renders a report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.base.wording import one_line
from orchestrator.results.machines import MEANING, ComputedOn
from orchestrator.results.text_table import TextTable

EXPLANATION = """\
Each value is a mean over seeds ± half the width of its 95 % confidence interval (Student's t over seeds). With one
seed, only the columns *strict* have an interval: Wilson's interval over the sampled images. The column *accuracy*
uses the paper's protocol: if the task is not given, it is inferred once for each group of test images. The columns
*strict* use the strict protocol: the task of each sampled image is inferred from this image alone. In NNs, a
*duplicate* is a mask that was allocated for a task that already had a mask. A *wrong reuse* is a segment on which the
mask of another task was trained. The main task of a mask is the task of most segments that the mask was trained on.
*purity* is the share of trained segments that belong to the main task of their mask."""
"""Explains the table of final accuracies."""


def to_markdown(
    sweep_id: str,
    final: TextTable,
    sections: Mapping[str, TextTable],
    num_incomplete: int,
    pictures: Sequence[str],
    computed: Sequence[ComputedOn],
) -> str:
    """Returns the report of a sweep as Markdown.

    final: the table of final accuracies. sections: further tables by title; tables without rows are left out.
    num_incomplete: the number of runs that lack evaluation points. pictures: names of picture files in the report's
    folder. computed: the runs by their machine kinds.
    """
    lines = [f"# {literal(sweep_id)}", ""]
    if num_incomplete:
        lines += [f"**Unfinished.** Runs that lack evaluation points: {num_incomplete}.", ""]
    for found in computed:
        if found.is_mixed:
            lines += [f"**More than one machine kind.** {', '.join(found.runs)}. Note: {MEANING}.", ""]
            lines += [*(f"- {machine}" for machine in found.machines), ""]
    lines += [*table_lines(final), "", *EXPLANATION.splitlines(), ""]
    for title, table in sections.items():
        if table.rows:
            lines += [f"## {title}", "", *table_lines(table), ""]
    lines += [f"![{name.removesuffix('.png').replace('_', ' ').capitalize()}]({name})" for name in pictures]
    return "\n".join([*lines, ""])


def table_lines(table: TextTable) -> list[str]:
    """Returns a table as lines of Markdown."""
    rule = "|" + " --- |" * len(table.headings)
    head, *rows = ["| " + " | ".join(map(literal, cells)) + " |" for cells in (table.headings, *table.rows)]
    return [head, rule, *rows]


_MARKUP = str.maketrans({one: f"\\{one}" for one in "\\`*[]|~"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"})
"""Escapes characters that would begin HTML, a link, emphasis, code or a cell of a table in Markdown."""


def literal(text: str) -> str:
    """Returns Markdown that shows a text unchanged, in one line."""
    return one_line(text).translate(_MARKUP)
