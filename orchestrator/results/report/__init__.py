"""Makes the report of a sweep (tables, figures and an HTML page) from the states of its training groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.base.wording import duration, in_shell
from orchestrator.records.group_state import GroupState
from orchestrator.results.machines import computed_on
from orchestrator.results.report import figures, tables
from orchestrator.results.report.cells import final_cells, paired_cells, published_cells
from orchestrator.results.report.files import ReportFiles
from orchestrator.results.report.markdown import to_markdown
from orchestrator.results.report.page import Page, render
from orchestrator.results.report.publication import Publication
from orchestrator.results.report.published import published_table
from orchestrator.results.report.search import (
    Trial,
    best_of,
    best_sweep,
    search_cells,
    search_table,
    trials_of,
    without_late_results,
)
from orchestrator.results.report_settings import default_style
from orchestrator.results.text_table import align_with_rule
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.training_groups import Group
from supsup_core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_BEST_SWEEP = "best.yaml"


@dataclass(frozen=True)
class Report:
    """A report: its folder, the files written, and the table to print. `trouble`: a message for the user if the
    files could not be written, else None."""

    folder: Path
    files: list[Path]
    text: str
    trouble: str | None = None


def publish(sweep: Sweep, groups: Sequence[Group], states: Mapping[str, GroupState], folder: Path) -> Path:
    """Writes the page of a sweep, and the page of all published accuracies, into a documentation folder.

    Returns the path of the sweep's page. Raises InputError if no evaluation point of the sweep is complete yet, if the
    sweep is a search, or if the folder cannot be used.
    """
    if sweep.config.search is not None:
        raise InputError(
            f"{sweep.sweep_id}: is a search, which has no results on test images; run its best.yaml, and publish that "
            "sweep"
        )
    points = _points(sweep, groups, states)
    with default_style():
        made = _tables(groups, states, points, [])
        pictures = _pictures(sweep.config.name, made)
        computed = computed_on(groups, states)
        num_incomplete = _completeness(groups, states).num_incomplete
        cost = _cost(sweep, states)
        return Publication(sweep, made, pictures, _CAPTIONS, computed, cost, num_incomplete).write(folder)


def _points(sweep: Sweep, groups: Sequence[Group], states: Mapping[str, GroupState]) -> pd.DataFrame:
    """Returns the table of a sweep's evaluation points. Raises InputError if none is complete yet."""
    points = tables.points_table(groups, states)
    if points.empty:
        raise InputError(
            f"{sweep.sweep_id}: no evaluation point is complete yet; run `{sweep.command('resume')}` first"
        )
    return points


class _Completeness(NamedTuple):
    """The number of runs of a sweep, and the number of runs that lack evaluation points."""

    num_runs: int
    num_incomplete: int


def write_report(sweep: Sweep, groups: Sequence[Group], states: Mapping[str, GroupState]) -> Report:
    """Write the HTML page, the CSV and Markdown tables and the figures into the sweep's report folder.

    If the files cannot be written, for example on a full disk, the report's `trouble` says why. Raises InputError if no
    evaluation point of the sweep is complete yet.
    """
    if sweep.config.search is not None:
        states = without_late_results(sweep.config.search, groups, states)
    points = _points(sweep, groups, states)
    with default_style():
        return _write(sweep, groups, states, points)


def _write(sweep: Sweep, groups: Sequence[Group], states: Mapping[str, GroupState], points: pd.DataFrame) -> Report:
    """Writes the report. points: a table that `points_table` has returned."""
    trials = trials_of(groups, states) if sweep.config.search is not None else []
    best = best_of(trials)
    made = _tables(groups, states, points, trials)
    pictures = _pictures(sweep.config.name, made)
    texts = {} if best is None else {_BEST_SWEEP: best_sweep(sweep, best)}
    texts |= _pages(sweep, groups, states, made, pictures, trials)
    folder = sweep.folder.report
    shown = _shown(made, trials, folder / _BEST_SWEEP if best is not None else None)
    try:
        files = ReportFiles(made, pictures, texts).write(folder)
    except OSError as error:
        trouble = f"{folder}: the report cannot be written ({error.strerror or error}); "
        trouble += f"correct the cause, then run `{sweep.command('report')}`"
        return Report(folder, [], shown, trouble)
    return Report(folder, files, shown)


def _tables(
    groups: Sequence[Group], states: Mapping[str, GroupState], points: pd.DataFrame, trials: Sequence[Trial]
) -> dict[str, pd.DataFrame]:
    """Returns the tables of a report by file name. points: a table that `points_table` has returned."""
    summary = tables.summary_table(points)
    made = {
        "points.csv": points,
        "summary.csv": summary,
        "final.csv": tables.final_table(summary),
        "tasks.csv": tables.tasks_table(groups, states),
        "published.csv": published_table(groups, summary),
        "paired.csv": tables.paired_table(points),
        "confusion.csv": tables.confusion_table(groups, states),
    }
    if trials:
        made["search.csv"] = search_table(trials)
    recovery = tables.recovery_table(groups, states)
    if not recovery.empty:
        made["recovery.csv"] = recovery
    allocation = tables.allocation_table(groups, states)
    if not allocation.empty:
        made |= {"decisions.csv": tables.decisions_table(groups, states), "masks.csv": allocation}
    return made


def _pictures(title: str, made: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Returns the figures of a report by file name without suffix. made: the report's tables by file name."""
    pictures = {}
    if made["summary.csv"]["num_learned"].nunique() > 1:
        pictures["accuracy_over_tasks"] = figures.accuracy_over_tasks(made["summary.csv"], title)
    pictures["accuracy_by_task"] = figures.accuracy_by_task(made["tasks.csv"], title)
    if "recovery.csv" in made:
        pictures["recovery_over_steps"] = figures.recovery_over_steps(made["recovery.csv"], title)
    if "masks.csv" in made:
        pictures["masks_over_tasks"] = figures.masks_over_tasks(made["masks.csv"], title)
        if (made["decisions.csv"]["num_masks"] > 0).any():
            pictures["statistic_over_masks"] = figures.statistic_over_masks(made["decisions.csv"], title)
    return pictures


def _pages(
    sweep: Sweep,
    groups: Sequence[Group],
    states: Mapping[str, GroupState],
    made: Mapping[str, pd.DataFrame],
    pictures: Mapping[str, Figure],
    trials: Sequence[Trial],
) -> dict[str, str]:
    """Returns the report's Markdown text and HTML page by file name."""
    final, search = final_cells(made["final.csv"]), search_cells(trials)
    published, paired = published_cells(made["published.csv"]), paired_cells(made["paired.csv"])
    completeness = _completeness(groups, states)
    sections = {"Trials": search, "Comparison with the paper": published, "Seed by seed": paired}
    computed = computed_on(groups, states)
    markdown = to_markdown(
        sweep.sweep_id, final, sections, completeness.num_incomplete, [f"{stem}.png" for stem in pictures], computed
    )
    page = Page(
        sweep=sweep,
        final=final,
        published=published,
        paired=paired,
        search=search,
        figures={_CAPTIONS[stem]: figure for stem, figure in pictures.items()},
        tables=list(made),
        computed=computed,
        environments=[state.environment for state in states.values() if state.plan is not None],
        num_incomplete=completeness.num_incomplete,
        num_runs=completeness.num_runs,
        cost=_cost(sweep, states),
    )
    return {"report.md": markdown, "report.html": render(page)}


_CAPTIONS = {
    "accuracy_over_tasks": "Average accuracy over the tasks learned so far. The bands are 95 % confidence "
    "intervals of the mean over seeds.",
    "accuracy_by_task": "Accuracy of each task after the last task was learned, as the mean over seeds.",
    "recovery_over_steps": "Number of units that differ from the right mask after each step of the recovery, with one "
    "line per seed and task.",
    "masks_over_tasks": "Number of masks in use, against the amount of training data so far, measured in tasks.",
    "statistic_over_masks": "The statistic of the allocation test for data of new and of known tasks, and the "
    "threshold, against the number of masks in superposition.",
}


def _shown(made: Mapping[str, pd.DataFrame], trials: Sequence[Trial], best: Path | None) -> str:
    """Returns the text to print: the table of final accuracies, or for a search the table of trials.

    best: the path of the sweep file of the best trial, which a search prints too; None if there is no best trial yet.
    """
    if not trials:
        return align_with_rule(final_cells(made["final.csv"]))
    text = align_with_rule(search_cells(trials))
    return f"{text}\n\nbest:    {best}  (run it with: supsup sweep {in_shell(best)})" if best is not None else text


def _cost(sweep: Sweep, states: Mapping[str, GroupState]) -> str:
    """Returns a line with the current time, and the total time that workers spent on training and on evaluation."""
    training = sum(sum(state.shard_seconds()) for state in states.values())
    evaluating = sum(row.event.seconds or 0 for state in states.values() for row in state.evaluated.values())
    today = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"{sweep.sweep_id} · scale {sweep.config.scale} · {today} · "
        f"{duration(training)} of training and {duration(evaluating)} of evaluation, summed over all workers"
    )


def _completeness(groups: Sequence[Group], states: Mapping[str, GroupState]) -> _Completeness:
    """Count the runs, and the runs that lack evaluation points. A stopped run counts as complete."""
    num_runs = num_incomplete = 0
    for group in groups:
        state = states.get(group.group_id, GroupState())
        for run, points in zip(group.runs, group.points, strict=True):
            num_runs += 1
            num_incomplete += not state.stopped and any((run.run_id, n) not in state.points for n in points)
    return _Completeness(num_runs, num_incomplete)
