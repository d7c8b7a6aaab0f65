"""Gives notebooks and scripts the results of sweeps as data frames, and figures as Matplotlib objects."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from orchestrator.base.output_folder import OutputFolder
from orchestrator.results.report import figures, tables
from orchestrator.sweeps.lookup import read_states
from orchestrator.sweeps.sweep import Sweep, find_sweep, open_record
from orchestrator.sweeps.sweep_record import all_records
from supsup_core.errors import InputError
from supsup_core.input_files import user_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST = ["sweep", "scale", "run", "scenario", "method", "seed", "num_learned", "metric", "value", "low", "high"]
"""The first columns of `load_results`. The other columns are the keys that the sweeps vary, such as `net.width`."""


def load_results(path: str | Path, sweep: str | None = None) -> pd.DataFrame:
    """Returns the metrics of all sweeps of an output, in one row per run, seed, number of tasks learned and metric.

    path: an output folder (`output=DIR`, by default `runs`). sweep: the name of a sweep or its beginning; None loads
    all sweeps. The columns are those in `FIRST`, and one column for each key that a sweep varies. Accuracies and other
    shares are in [0, 1]. A damaged sweep is left out with a warning. Raises InputError if no sweep fits or is intact.
    """
    output = OutputFolder(user_path(path))
    if sweep is None:
        records = all_records(output, lambda error: warnings.warn(f"a sweep is left out: {error}", stacklevel=3))
        found = [open_record(record) for record in records]
    else:
        found = [find_sweep(output, sweep)]
    if not found:
        raise InputError(
            f"{output.path}: contains no sweep; start one with `supsup sweep FILE`, or name another output"
        )
    parts = [part for one in found for part in _of(one, wanted=sweep is not None) if not part.empty]
    if not parts:
        return pd.DataFrame(columns=FIRST)
    table = pd.concat(parts, ignore_index=True)
    return table[[*FIRST, *(column for column in table.columns if column not in FIRST)]]


def _of(sweep: Sweep, wanted: bool) -> list[pd.DataFrame]:
    """Returns a list with the table of one sweep. Warns and returns an empty list if the sweep cannot be planned.

    wanted: whether the user named this sweep. For a sweep that the user named, raises InputError instead of warning.
    """
    try:
        groups = sweep.plan()
    except InputError as error:
        if wanted:
            raise
        warnings.warn(f"sweep {sweep.sweep_id} is left out: {error}", stacklevel=3)
        return []
    points = tables.points_table(groups, read_states(sweep.folder, sweep.planned))
    rows = [
        {
            **{key: str(value) if isinstance(value, dict | list) else value for key, value in run.varied.items()},
            "run": run.label,
            "seed": run.experiment.seed,
            "scenario": run.experiment.scenario.name,
            "method": run.experiment.node["method"]["name"],
        }
        for group in groups
        for run in group.runs
    ]
    runs = pd.DataFrame(rows).drop_duplicates(["run", "seed"])
    return [points.merge(runs, on=["run", "seed"]).assign(sweep=sweep.sweep_id, scale=sweep.config.scale)]


def plot_accuracy(results: pd.DataFrame, title: str = "") -> Figure:
    """Plot the average accuracy against the number of tasks learned, with one line per run.

    The band of a line is the 95 % interval over seeds. results: a data frame that `load_results` has returned. If
    `results` contains several sweeps, each line's label starts with the id of a sweep. Raises InputError if `results`
    contains no accuracy.
    """
    if not (results["metric"] == "accuracy").any():
        raise InputError("the results contain no accuracy yet; continue the sweep with `supsup resume`")
    if results["sweep"].nunique() > 1:
        results = results.assign(run=results["sweep"] + " " + results["run"])
    return figures.accuracy_over_tasks(tables.summary_table(results), title)
