"""Tables and figures of a sweep, from its ledgers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.plan import Group
from orchestrator.report import figures, tables
from orchestrator.report.published import published_table
from orchestrator.state import GroupState
from orchestrator.sweep import Sweep
from supsup_core.errors import InputError


@dataclass(frozen=True)
class Report:
    """What a report consists of: the files it wrote, and the table to print."""

    folder: Path
    files: list[Path]
    text: str


def write_report(sweep: Sweep, groups: Sequence[Group], states: Mapping[str, GroupState]) -> Report:
    """Write CSV and Markdown tables and the accuracy figure into the sweep's report folder.

    InputError when no evaluation point of the sweep is complete yet.
    """
    points = tables.points_table(groups, states)
    if points.empty:
        raise InputError(f"{sweep.sweep_id}: nothing is evaluated yet; run `supsup resume {sweep.sweep_id}` first")
    folder = sweep.path / "report"
    folder.mkdir(parents=True, exist_ok=True)
    summary = tables.summary_table(points)
    final = tables.final_table(summary)
    tasks = tables.tasks_table(groups, states)
    beside = published_table(groups, summary)
    written = {
        "points.csv": points,
        "summary.csv": summary,
        "final.csv": final,
        "tasks.csv": tasks,
        "published.csv": beside,
        "confusion.csv": tables.confusion_table(groups, states),
    }
    pictures = {
        "accuracy_over_tasks.png": figures.accuracy_over_tasks(summary, sweep.config.name),
        "accuracy_by_task.png": figures.accuracy_by_task(tasks, sweep.config.name),
    }
    decisions, books = tables.decisions_table(groups, states), tables.books_table(groups, states)
    if not books.empty:
        written |= {"decisions.csv": decisions, "masks.csv": books}
        pictures["masks_over_tasks.png"] = figures.masks_over_tasks(books, sweep.config.name)
        if (decisions["num_masks"] > 0).any():
            pictures["statistic_over_masks.png"] = figures.statistic_over_masks(decisions, sweep.config.name)
    files = []
    for name, table in written.items():
        table.to_csv(folder / name, index=False)
        files.append(folder / name)
    incomplete = sum(run_points < wanted for run_points, wanted in _completeness(groups, states))
    markdown = tables.to_markdown(sweep, final, beside, incomplete, list(pictures))
    (folder / "report.md").write_text(markdown)
    files.append(folder / "report.md")
    for name, figure in pictures.items():
        figure.savefig(folder / name, dpi=150)
        files.append(folder / name)
    return Report(folder, files, tables.to_text(final))


def _completeness(groups: Sequence[Group], states: Mapping[str, GroupState]) -> list[tuple[int, int]]:
    """Per run, how many evaluation points are in and how many there are to be."""
    counts = []
    for group in groups:
        state = states.get(group.group_id, GroupState())
        for run, points in zip(group.runs, group.points, strict=True):
            counts.append((sum((run.run_id, n) in state.points for n in points), len(points)))
    return counts
