"""Renders a report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.results.text_table import TextTable

_EXPLANATION = """\
Mean over seeds ± half the 95 % interval: Student's t over seeds; with one seed, Wilson's interval of the images sampled
for the strict protocol. *accuracy*: the paper's protocol, one decision for each group of test images. *strict*: one
decision for each sampled image. NNs: a *duplicate* is a mask allocated for a task that already had one. A *wrong reuse*
is a segment trained on another task's mask. *purity* is the share of segments whose task is the one that was most often
trained on the same mask."""


def to_markdown(
    sweep_id: str,
    final: TextTable,
    sections: Mapping[str, TextTable],
    num_incomplete: int,
    pictures: Sequence[str],
) -> str:
    """Returns the report of a sweep as Markdown.

    final: the table of final accuracies. sections: further tables by title; tables without rows are left out.
    num_incomplete: the number of runs that lack evaluation points. pictures: names of picture files in the report's
    folder.
    """
    lines = [f"# {sweep_id}", ""]
    if num_incomplete:
        lines += [f"**Unfinished.** Runs that lack evaluation points: {num_incomplete}.", ""]
    lines += [*_table(final), "", *_EXPLANATION.splitlines(), ""]
    for title, table in sections.items():
        if table.rows:
            lines += [f"## {title}", "", *_table(table), ""]
    lines += [f"![{name.removesuffix('.png').replace('_', ' ').capitalize()}]({name})" for name in pictures]
    return "\n".join([*lines, ""])


def _table(table: TextTable) -> list[str]:
    """Returns a table as lines of Markdown."""
    lines = ["| " + " | ".join(table.headings) + " |", "|" + " --- |" * len(table.headings)]
    return lines + ["| " + " | ".join(cells) + " |" for cells in table.rows]
