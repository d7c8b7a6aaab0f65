"""Draws the figures of a report as Matplotlib objects, without a display and without pyplot's global state."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.base.plain_values import Node

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The palette of Okabe and Ito, whose colours are also distinct for colour-blind readers."""
_MARKERS = "osD^vPX*<"
_STYLES = ("-", "--", ":", "-.")
"""There are 7 colours, 9 markers and 4 styles. The numbers 7, 9 and 4 are pairwise coprime, so when a colour repeats,
the marker and the style are different."""


_UNLABELLED = re.compile(r"_child\d+")
"""The labels that Matplotlib gives to lines without a label. Matplotlib's own legends omit every label with a `_`."""


def _literal(text: object) -> str:
    """Returns a text as Matplotlib must receive it, so that `$` is drawn and does not begin a formula."""
    return str(text).replace("$", r"\$")


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """Returns an empty figure of the default size, and its axes."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(_literal(title))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    return figure, axes


def _legend(figure: Figure, axes: Axes, title: str | None = None) -> None:
    """Add a legend inside the axes, or beside the axes if there are more than five lines."""
    handles = [line for line in axes.get_lines() if not _UNLABELLED.fullmatch(str(line.get_label()))]
    labels = [str(line.get_label()) for line in handles]
    style: Node = {"frameon": False, "fontsize": "small", "title": title, "title_fontsize": "x-small"}
    if len(labels) <= 5:
        axes.legend(handles, labels, **style)
        return
    figure.set_figwidth(figure.get_figwidth() + 0.6 + 0.07 * max(map(len, labels)))  # 0.07 inches for each letter
    figure.set_figheight(max(figure.get_figheight(), 0.6 + 0.19 * len(labels)))
    figure.legend(handles, labels, loc="outside right upper", **style)


_MOST_PANELS = 8
"""The maximum number of panels in one figure. Runs beyond this number are left out."""


def _panels(data: pd.DataFrame, title: str, x: str, y: str) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """Returns a figure with a panel for each of the first eight runs of `data`, and the (axes, rows) of each panel."""
    parts = list(data.groupby("run", sort=False))[:_MOST_PANELS]
    columns = min(2, len(parts))
    rows = -(-len(parts) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.2 * rows), layout="constrained")
    figure.suptitle(_literal(title))
    panels = []
    for number, (run, part) in enumerate(parts, start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.set_title(_literal(run), fontsize="small")
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(alpha=0.25)
        panels.append((axes, part))
    return figure, panels


def accuracy_over_tasks(summary: pd.DataFrame, title: str) -> Figure:
    """Plot the average accuracy against the number of tasks learned, with one line per run.

    The band of a line is the 95 % interval over seeds. summary: a table that `tables.summary_table` has returned.
    """
    figure, axes = _axes(title, "tasks learned", "average accuracy (%)")
    accuracy = summary[summary["metric"] == "accuracy"]
    for number, (run, part) in enumerate(accuracy.sort_values("num_learned", kind="stable").groupby("run", sort=False)):
        style = _STYLES[number % len(_STYLES)]
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        axes.plot(
            part["num_learned"], 100 * part["mean"], label=_literal(run),
            color=colour, marker=marker, linestyle=style, markersize=4, linewidth=1.4,
        )  # fmt: skip
        if (part["num_seeds"] > 1).any():
            low, high = 100 * part["low"], 100 * part["high"]
            axes.fill_between(part["num_learned"], low, high, color=colour, alpha=0.15, linewidth=0)
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, 0), min(top, 100))
    axes.set_xlim(0, 1.05 * accuracy["num_learned"].max())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, axes)
    return figure


def accuracy_by_task(tasks: pd.DataFrame, title: str) -> Figure:
    """Plot the accuracy of each task after the run's last task. Each run has one line, which shows the mean over seeds.

    tasks: a table that `tables.tasks_table` has returned.
    """
    figure, axes = _axes(title, "task, in the order learned", "accuracy (%)")
    for number, (run, part) in enumerate(tasks.groupby("run", sort=False)):
        last = part[part["num_learned"] == part["num_learned"].max()]
        means = 100 * last.groupby("task")["accuracy"].mean()
        colour, style = _COLOURS[number % len(_COLOURS)], _STYLES[number % len(_STYLES)]
        label = _literal(f"{run} ({means.mean():.2f})")
        axes.plot(means.index, means, color=colour, linestyle=style, linewidth=1.2, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, axes, title="mean over tasks in brackets")
    return figure


def recovery_over_steps(recovery: pd.DataFrame, title: str) -> Figure:
    """Plot, for HopSupSup, how many units differ from the right mask after each step of the mask recovery.

    There is one panel per run, for at most eight runs, and one line per seed and task. recovery: a table that
    `tables.recovery_table` has returned.
    """
    figure, panels = _panels(recovery, title, "steps of the recovery", "units that differ")
    for axes, part in panels:
        for _, line in part.groupby(["seed", "task"], sort=False):
            is_recovered = line["distance"].iloc[-1] == 0
            colour = _COLOURS[0 if is_recovered else 1]
            axes.plot(line["step"], line["distance"], color=colour, alpha=0.4, linewidth=0.8)
        for colour, label in (
            (_COLOURS[0], "every decision ends at the right mask"),
            (_COLOURS[1], "some decisions end at another mask"),
        ):
            axes.plot([], [], color=colour, label=label)
        axes.set_ylim(0, None)
        axes.legend(frameon=False, fontsize="x-small")
    return figure


def masks_over_tasks(allocation: pd.DataFrame, title: str) -> Figure:
    """Plot, for scenario NNs, the number of masks in use against the amount of training data seen, measured in tasks.

    There is one line per run and seed. The diagonal marks one mask per task. allocation: a table that
    `tables.allocation_table` has returned.
    """
    figure, axes = _axes(title, "data seen (in tasks)", "masks")
    last = int(allocation["num_learned"].max())
    axes.plot([0, last], [0, last], color="0.6", linewidth=1, linestyle="--", label="one mask per task")
    for number, (run, part) in enumerate(allocation.groupby("run", sort=False)):
        colour, style = _COLOURS[number % len(_COLOURS)], _STYLES[number % len(_STYLES)]
        for index, (_, seed) in enumerate(part.groupby("seed")):
            label = _literal(run) if index == 0 else None
            axes.plot(seed["num_learned"], seed["masks"], color=colour, linestyle=style, linewidth=1.2, label=label)
    _legend(figure, axes)
    return figure


def statistic_over_masks(decisions: pd.DataFrame, title: str) -> Figure:
    """Plot, for scenario NNs, the allocation test's statistic and threshold against the number k of superposed masks.

    Segments of new tasks and of known tasks have different colours. Statistics above 40 are drawn at 40. There is one
    panel per run, for at most eight runs. decisions: a table that `tables.decisions_table` has returned.
    """
    superposed = decisions[decisions["num_masks"] > 0]
    figure, panels = _panels(superposed, title, "masks in superposition (k)", "statistic")
    for axes, part in panels:
        for truth, colour in (("known", _COLOURS[0]), ("new", _COLOURS[1])):
            found = part[part["truth"] == truth]
            axes.scatter(
                found["num_masks"], found["statistic"].clip(upper=40), s=6, color=colour, alpha=0.5, linewidths=0,
                label=f"{truth} ({len(found)})",
            )  # fmt: skip
        thresholds = part.groupby("num_masks")["threshold"].median()
        axes.plot(thresholds.index, thresholds, color="black", linewidth=1, label="threshold")
        axes.legend(frameon=False, fontsize="x-small")
    return figure
