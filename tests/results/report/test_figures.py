"""The figures of a report: their lines, colours and panels."""

from __future__ import annotations

import matplotlib
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.results.report import figures
from orchestrator.results.report.files import picture
from orchestrator.results.report_settings import default_style


def the_axes(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def summary(num_runs: int) -> pd.DataFrame:
    rows = [
        {"run": f"run {run}", "num_learned": n, "metric": metric, "num_seeds": 2, "mean": 0.5, "low": 0.4, "high": 0.6}
        for run in range(num_runs)
        for n in (10, 1)
        for metric in ("accuracy", "forgetting")
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("num_runs", [1, 20])
def test_the_accuracy_figure_has_one_line_in_percent_for_each_run_and_all_lines_differ_in_style(num_runs: int) -> None:
    figure = figures.accuracy_over_tasks(summary(num_runs), "a title")
    axes = the_axes(figure)
    assert axes.get_title() == "a title"
    assert len(axes.lines) == num_runs
    assert all(list(line.get_xdata()) == [1, 10] for line in axes.lines)
    assert all(list(line.get_ydata()) == [50, 50] for line in axes.lines)
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == num_runs
    assert len(axes.collections) == num_runs  # the bands of the intervals
    assert (axes.get_legend() is None) == (num_runs > 5)
    assert len(figure.legends) == (num_runs > 5)


def test_accuracy_by_task_is_the_mean_over_seeds_after_the_last_task() -> None:
    tasks = pd.DataFrame(
        [("a", seed, n, task, 0.1 * task + 0.2 * seed) for seed in (0, 1) for n in (1, 2) for task in range(n)],
        columns=["run", "seed", "num_learned", "task", "accuracy"],
    )
    (line,) = the_axes(figures.accuracy_by_task(tasks, "")).lines
    assert list(line.get_ydata()) == pytest.approx([10, 20])
    assert line.get_label() == "a (15.00)"


def test_recoveries_that_end_at_the_right_mask_have_another_colour() -> None:
    recovery = pd.DataFrame(
        [("a", 0, task, step, distance) for task, distances in enumerate(((3, 0), (3, 1))) for step, distance in
         enumerate(distances)],
        columns=["run", "seed", "task", "step", "distance"],
    )  # fmt: skip
    lines = [line for line in the_axes(figures.recovery_over_steps(recovery, "")).lines if len(line.get_xdata())]
    assert len(lines) == 2
    assert lines[0].get_color() != lines[1].get_color()


def test_the_masks_figure_has_a_line_for_each_seed_and_a_reference_line_of_one_mask_per_task() -> None:
    allocation = pd.DataFrame(
        [("a", seed, n, n + seed) for seed in (0, 1) for n in (1, 2)], columns=["run", "seed", "num_learned", "masks"]
    )
    axes = the_axes(figures.masks_over_tasks(allocation, ""))
    assert [list(line.get_ydata()) for line in axes.lines] == [[0, 2], [1, 2], [2, 3]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one mask per task", "a"]


def test_the_statistics_figure_has_a_panel_for_each_run_and_limits_panels_and_values() -> None:
    decisions = pd.DataFrame(
        [(f"run {run}", masks, statistic, 2.0, truth) for run in range(10)
         for masks, statistic, truth in ((0, 9.0, "new"), (1, 99.0, "new"), (1, 0.5, "known"))],
        columns=["run", "num_masks", "statistic", "threshold", "truth"],
    )  # fmt: skip
    figure = figures.statistic_over_masks(decisions, "")
    assert len(figure.axes) == 8
    known, new = figure.axes[0].collections
    assert known.get_offsets().tolist() == [[1, 0.5]]
    assert new.get_offsets().tolist() == [[1, 40.0]]


def test_names_are_drawn_as_they_are() -> None:
    names = ["_baseline", "lr$LR_$SEED", "plain"]
    tasks = pd.DataFrame(
        [(name, 0, 1, 0, 0.5) for name in names], columns=["run", "seed", "num_learned", "task", "accuracy"]
    )
    figure = figures.accuracy_by_task(tasks, "$a_title$")
    legend = the_axes(figure).get_legend()
    assert legend is not None
    with default_style():
        svg = picture(figure, "svg").decode()
    shown = [text.get_text().replace("\\$", "$") for text in legend.get_texts()]
    assert shown == [f"{name} (50.00)" for name in names]
    assert "_baseline (50.00)" in svg
    assert "lr\\$LR_\\$SEED (50.00)" in svg or "lr$LR_$SEED (50.00)" in svg


def test_the_users_settings_of_matplotlib_do_not_change_a_figure() -> None:
    def drawn() -> bytes:
        with default_style():
            return picture(figures.accuracy_over_tasks(summary(2), "a title"), "png")

    before = drawn()
    with matplotlib.rc_context({"font.size": 20.0, "axes.facecolor": "black", "text.usetex": True}):
        assert drawn() == before
