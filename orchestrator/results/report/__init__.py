"""Tables and figures of a sweep, from its ledgers alone."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from orchestrator.base.files import write_atomically
from orchestrator.base.wording import duration, in_shell
from orchestrator.records.group_state import GroupState
from orchestrator.results.report import figures, tables
from orchestrator.results.report.page import Page, Shown, render
from orchestrator.results.report.published import published_table
from orchestrator.results.report.search import Trial, best_of, best_sweep, search_cells, search_table, trials_of
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.training_groups import Group
from supsup_core.errors import InputError


@dataclass(frozen=True)
class Report:
    """What a report consists of: the files it wrote, and the table to print. `trouble`: why there are no files."""

    folder: Path
    files: list[Path]
    text: str
    trouble: str | None = None


def write_report(sweep: Sweep, groups: Sequence[Group], states: Mapping[str, GroupState]) -> Report:
    """Write the page, CSV and Markdown tables and figures into the sweep's report folder.

    InputError when no evaluation point of the sweep is complete yet.
    """
    points = tables.points_table(groups, states)
    if points.empty:
        raise InputError(f"{sweep.sweep_id}: nothing is evaluated yet; run `{sweep.command('resume')}` first")
    folder = sweep.folder.report
    summary = tables.summary_table(points)
    final = tables.final_table(summary)
    tasks = tables.tasks_table(groups, states)
    beside = published_table(groups, summary)
    paired = tables.paired_table(points)
    written = {
        "points.csv": points,
        "summary.csv": summary,
        "final.csv": final,
        "tasks.csv": tasks,
        "published.csv": beside,
        "paired.csv": paired,
        "confusion.csv": tables.confusion_table(groups, states),
    }
    trials = trials_of(groups, states) if sweep.config.search is not None else []
    texts: dict[str, str] = {}
    text = tables.to_text(tables.final_cells(final))
    if trials:
        written["search.csv"] = search_table(trials)
        texts, text = _searched(sweep, trials, folder)
    name, completeness = sweep.config.name, _completeness(groups, states)
    pictures = {"accuracy_by_task": figures.accuracy_by_task(tasks, name)}
    if summary["num_learned"].nunique() > 1:
        pictures = {"accuracy_over_tasks": figures.accuracy_over_tasks(summary, name)} | pictures
    for more_tables, more_pictures in (_recovered(groups, states, name), _allocated(groups, states, name)):
        written |= more_tables
        pictures |= more_pictures
    incomplete = sum(run_points < wanted for run_points, wanted in completeness)
    told = Page(
        sweep=sweep,
        final=Shown(*tables.final_cells(final)),
        beside=Shown(*tables.published_cells(beside)),
        paired=Shown(*tables.paired_cells(paired)),
        search=Shown(*search_cells(trials)),
        figures={_CAPTIONS[stem]: figure for stem, figure in pictures.items()},
        tables=list(written),
        environments=[state.environment for state in states.values() if state.plan is not None],
        incomplete=incomplete,
        num_runs=len(completeness),
        made=_made(sweep, states),
    )
    sections = {
        "Trials": search_cells(trials),
        "Beside the paper": tables.published_cells(beside),
        "Seed by seed": tables.paired_cells(paired),
    }
    markdown = tables.to_markdown(sweep, final, sections, incomplete, [f"{stem}.png" for stem in pictures])
    texts |= {"report.md": markdown, "report.html": render(told)}
    files, trouble = _written(sweep, folder, written, pictures, texts)
    return Report(folder, files, text, trouble)


def _written(sweep: Sweep, folder: Path, *contents: Any) -> tuple[list[Path], str | None]:
    """The files of `_write`; or none, and why."""
    try:
        return _write(folder, *contents), None
    except OSError as error:
        why = error.strerror or error
        return [], f"{folder}: the report cannot be written ({why}); mend that, then: {sweep.command('report')}"


_Made = tuple[dict[str, pd.DataFrame], dict[str, Figure]]
"""Tables by the names of their files, and pictures by those of theirs, without suffix."""


def _recovered(groups: Sequence[Group], states: Mapping[str, GroupState], name: str) -> _Made:
    """How Hopfield descents went; empty where none was traced."""
    recovery = tables.recovery_table(groups, states)
    if recovery.empty:
        return {}, {}
    return {"recovery.csv": recovery}, {"recovery_over_steps": figures.recovery_over_steps(recovery, name)}


def _allocated(groups: Sequence[Group], states: Mapping[str, GroupState], name: str) -> _Made:
    """How masks were allocated; empty where every task is given."""
    decisions, books = tables.decisions_table(groups, states), tables.books_table(groups, states)
    if books.empty:
        return {}, {}
    pictures = {"masks_over_tasks": figures.masks_over_tasks(books, name)}
    if (decisions["num_masks"] > 0).any():
        pictures["statistic_over_masks"] = figures.statistic_over_masks(decisions, name)
    return {"decisions.csv": decisions, "masks.csv": books}, pictures


def _searched(sweep: Sweep, trials: Sequence[Trial], folder: Path) -> tuple[dict[str, str], str]:
    """The best of a search as a file to be written, once it is known; and the trials, for the terminal."""
    text, best = tables.to_text(search_cells(trials)), best_of(trials)
    if best is None:
        return {}, text
    path = folder / "best.yaml"
    return {
        path.name: best_sweep(sweep, best)
    }, f"{text}\n\nbest:    {path}  (run it with: supsup sweep {in_shell(path)})"


def _write(
    folder: Path, written: Mapping[str, pd.DataFrame], pictures: Mapping[str, Figure], texts: Mapping[str, str]
) -> list[Path]:
    """Write tables, pictures (as PNG and SVG) and texts into a folder, each whole or not; returns their paths."""
    contents = {name: table.to_csv(index=False).encode() for name, table in written.items()}
    for stem, figure in pictures.items():
        for suffix in ("png", "svg"):
            buffer = io.BytesIO()
            figure.savefig(buffer, dpi=150, format=suffix)
            contents[f"{stem}.{suffix}"] = buffer.getvalue()
    contents |= {name: text.encode() for name, text in texts.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]


_CAPTIONS = {
    "accuracy_over_tasks": "Average accuracy over the tasks learned so far; the bands are 95 % intervals over seeds.",
    "accuracy_by_task": "Accuracy of each task after the last one was learned, the mean over seeds.",
    "recovery_over_steps": "How far from the right mask the descent is at each step, a line per seed and task.",
    "masks_over_tasks": "Masks in use over the data seen.",
    "statistic_over_masks": "What the allocation test saw: its statistic for data of new and of known tasks, and its "
    "threshold, over the masks in superposition.",
}


def _made(sweep: Sweep, states: Mapping[str, GroupState]) -> str:
    """When the report was made, and what the sweep has cost."""
    seconds = sum(sum(state.shard_seconds()) for state in states.values())
    tests = sum(row.event.seconds or 0 for state in states.values() for row in state.evaluated.values())
    today = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"{sweep.sweep_id} · scale {sweep.config.scale} · {today} · "
        f"{duration(seconds)} of training and {duration(tests)} of testing, all workers together"
    )


def _completeness(groups: Sequence[Group], states: Mapping[str, GroupState]) -> list[tuple[int, int]]:
    """Per run, how many evaluation points are in and how many there are to be."""
    counts = []
    for group in groups:
        state = states.get(group.group_id, GroupState())
        for run, points in zip(group.runs, group.points, strict=True):
            found = sum((run.run_id, n) in state.points for n in points)
            counts.append((found, found if state.stopped else len(points)))
    return counts
