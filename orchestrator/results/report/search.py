"""Ranks the trials of a search, and writes the best trial as a sweep file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from omegaconf import OmegaConf

from orchestrator.base.plain_values import Node
from orchestrator.records.group_state import ENDED, GroupState
from orchestrator.results.report.sweep_files import sweep_text
from orchestrator.results.text_table import TextTable
from orchestrator.spec.search_space import Search
from orchestrator.spec.successive_halving import Judged, halve
from orchestrator.spec.sweep_keys import COMPONENTS
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.training_groups import Group, Run


@dataclass(frozen=True)
class Trial:
    """A trial of a search, and its result at its last evaluation point.

    `values`: maps each searched key to the trial's value. `tasks`: the number of tasks learned at the last evaluation
    point; 0 if no evaluation point is complete yet. `accuracy`: the accuracy on the held-out images, in [0, 1].
    `ended`: how the trial ended: done, stopped, diverged, failed or interrupted.
    """

    values: Node
    tasks: int
    accuracy: float | None
    ended: str

    @property
    def is_over(self) -> bool:
        """Whether the trial is done, stopped, failed or diverged, and not interrupted."""
        return self.ended in (*ENDED, DIVERGED)


DIVERGED = "diverged"
"""The value of `Trial.ended` if the trial's loss became NaN or infinite."""


def without_late_results(
    search: Search, groups: Sequence[Group], states: Mapping[str, GroupState]
) -> dict[str, GroupState]:
    """Returns the states of a search's trials without the evaluation points after the rung at which ASHA stops a trial.

    groups: the training groups in the order of the plan. A trial trains on after a rung until ASHA can judge it there.
    The points after the rung are left out, because they depend on how long the trial had to wait. A complete trial that
    ASHA stops has the status `stopped`.

    If a ledger records a stop that ASHA does not confirm, returns the states unchanged. In this case, the user has
    cancelled a trial, or an earlier version of supsup has run the search.
    """
    found = {group.group_id: states.get(group.group_id, GroupState()) for group in groups}
    rungs = search.rungs(max((group.size.shards for group in groups), default=0))[:-1]
    judged = [
        Judged(_accuracies(found[group.group_id], group.runs[0]), found[group.group_id].ended in ("done", "stopped"))
        for group in groups
    ]
    stops = dict(zip(found, halve(judged, rungs, search.reduction), strict=True))
    if any(state.stopped and not _diverged(state) and stops[group_id] is None for group_id, state in found.items()):
        return found
    return {
        group_id: state if (stop := stops[group_id]) is None else _cut(state, stop) for group_id, state in found.items()
    }


def _accuracies(state: GroupState, run: Run) -> dict[int, float]:
    """Returns a run's accuracies at its completed evaluation points, by the number of tasks learned."""
    return {n: row.event.metrics["accuracy"] for (run_id, n), row in state.points.items() if run_id == run.run_id}


def _diverged(state: GroupState) -> bool:
    return state.stopped is not None and state.stopped.event.diverged is not None


def _cut(state: GroupState, stop: int) -> GroupState:
    """Returns a state without the points after `stop` tasks, and with the status `stopped` instead of `done`."""
    points = {place: row for place, row in state.points.items() if place[1] <= stop}
    return replace(state, points=points, status="stopped" if state.status == "done" else state.status)


def trials_of(groups: Sequence[Group], states: Mapping[str, GroupState]) -> list[Trial]:
    """Returns a search's trials in descending order of the number of tasks learned, and then of the accuracy."""
    trials = []
    for group in groups:
        state = states.get(group.group_id, GroupState())
        for run in group.runs:
            known = _accuracies(state, run)
            last = max(known, default=0)
            trials.append(Trial(run.varied, last, known.get(last), DIVERGED if _diverged(state) else state.ended))
    return sorted(trials, key=lambda trial: (-trial.tasks, -(trial.accuracy or 0.0)))


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """Returns the first trial that is done, which is the best.

    Returns None if a trial is not over, or if no trial is done.
    """
    over = all(trial.is_over for trial in trials)
    return next((trial for trial in trials if over and trial.ended == "done"), None)


def search_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """Returns a table with one row per trial: the trial's value of each searched key, and the trial's result."""
    rows = [
        {**trial.values, "tasks": trial.tasks, "validation_accuracy": trial.accuracy, "ended": trial.ended}
        for trial in trials
    ]
    return pd.DataFrame(rows, dtype=object)


def search_cells(trials: Sequence[Trial]) -> TextTable:
    """Returns a table of strings with one row per trial."""
    rows = []
    for trial in trials:
        shown = "–" if trial.accuracy is None else f"{100 * trial.accuracy:.2f}"
        rows.append([*map(str, trial.values.values()), str(trial.tasks), shown, trial.ended])
    keys = list(trials[0].values) if trials else []
    return TextTable([*keys, "tasks", "validation accuracy %", "ended"], rows)


def best_sweep(sweep: Sweep, best: Trial) -> str:
    """Returns the text of a sweep file in which the values of the trial `best` replace the search.

    The runs of this sweep file have the scale `paper` and are evaluated on the test images. The file can be run from
    any folder, because `imports` names the modules in the folder of the search's file by absolute paths. The names of
    installed modules stay unchanged.
    """
    config = OmegaConf.create(sweep.portable_config)
    for key, value in best.values.items():
        OmegaConf.update(config, key, value, merge=key not in COMPONENTS, force_add=True)
    node: Node = OmegaConf.to_container(config)  # type: ignore[assignment]
    node |= {"name": f"{sweep.config.name}_best", "search": None}
    head = f"# The configuration with the best accuracy on held-out images in the search {sweep.sweep_id}.\n"
    return head + sweep_text(node, sweep.imports_folder)
