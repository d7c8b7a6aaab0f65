"""Figures as matplotlib objects, made without a display and without pyplot's global state."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, told apart by colour-blind readers too."""
_MARKERS = "osD^vPX"
_STYLES = ("-", "--", ":", "-.")


def accuracy_over_tasks(summary: pd.DataFrame, title: str) -> Figure:
    """Average accuracy against the number of tasks learned, a line per run, seeds as a 95 % band."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    accuracy = summary[summary["metric"] == "accuracy"]
    for number, (run, part) in enumerate(accuracy.sort_values("num_learned").groupby("run", sort=False)):
        style = _STYLES[number % len(_STYLES)]
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        axes.plot(
            part["num_learned"], 100 * part["mean"], label=str(run),
            color=colour, marker=marker, linestyle=style, markersize=4, linewidth=1.4,
        )  # fmt: skip
        if (part["num_seeds"] > 1).any():
            low, high = 100 * part["low"], 100 * part["high"]
            axes.fill_between(part["num_learned"], low, high, color=colour, alpha=0.15, linewidth=0)
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, 0), min(top, 100))
    axes.set_xlim(0, 1.05 * accuracy["num_learned"].max())
    axes.set_xlabel("tasks learned")
    axes.set_ylabel("average accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize="small")
    return figure
