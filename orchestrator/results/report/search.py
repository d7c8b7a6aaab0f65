"""What a search has found: its trials from best to worst, and the best as a sweep file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from omegaconf import OmegaConf

from orchestrator.records.group_state import ENDED, GroupState
from orchestrator.results.report.tables import Cells
from orchestrator.spec.experiment import COMPONENTS
from orchestrator.spec.sweep_config import PAPER, defaults
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.training_groups import Group


@dataclass(frozen=True)
class Trial:
    """A trial and how far it came: `tasks` learned when it was last judged, and how accurate it then was on the images
    held out, in [0, 1]; `ended`: done, stopped, diverged, failed or interrupted."""

    values: Mapping[str, Any]
    tasks: int
    accuracy: float | None
    ended: str

    @property
    def is_over(self) -> bool:
        """Whether it will go no further."""
        return self.ended in (*ENDED, DIVERGED)


DIVERGED = "diverged"
"""How a trial has ended whose loss is no number any more."""


def trials_of(groups: Sequence[Group], states: Mapping[str, GroupState]) -> list[Trial]:
    """The trials of a search: those that got furthest come first, of these the most accurate."""
    trials = []
    for group in groups:
        state = states.get(group.group_id, GroupState())
        for run in group.runs:
            points = {n: row for (run_id, n), row in state.points.items() if run_id == run.run_id}
            last = max(points, default=0)
            accuracy = points[last].event.metrics["accuracy"] if points else None
            diverged = state.stopped is not None and state.stopped.event.diverged is not None
            trials.append(Trial(run.varied, last, accuracy, DIVERGED if diverged else state.ended))
    return sorted(trials, key=lambda trial: (-trial.tasks, -(trial.accuracy or 0.0)))


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The best that went to the end; None while one is still to end, or where none got there."""
    over = all(trial.is_over for trial in trials)
    return next((trial for trial in trials if over and trial.ended == "done"), None)


def search_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """A row per trial, a column per searched key."""
    rows = [
        {**trial.values, "tasks": trial.tasks, "validation_accuracy": trial.accuracy, "ended": trial.ended}
        for trial in trials
    ]
    return pd.DataFrame(rows, dtype=object)


def search_cells(trials: Sequence[Trial]) -> Cells:
    """Headings and cells of trials for people."""
    rows = []
    for trial in trials:
        shown = "–" if trial.accuracy is None else f"{100 * trial.accuracy:.2f}"
        rows.append([*map(str, trial.values.values()), str(trial.tasks), shown, trial.ended])
    keys = list(trials[0].values) if trials else []
    return [*keys, "tasks", "validation accuracy %", "ended"], rows


def best_sweep(sweep: Sweep, best: Trial) -> str:
    """A sweep file with the best trial's values in the place of the search, tested on the test images; it runs as it
    is, wherever it is put: modules that lie beside the search's file are named by their paths (packages are not)."""
    config = OmegaConf.create(asdict(sweep.config))
    for key, value in best.values.items():
        OmegaConf.update(config, key, value, merge=key not in COMPONENTS, force_add=True)
    node: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    imports = [_named_by_path(entry, sweep.imports_folder) for entry in node["imports"]]
    node |= {"name": f"{sweep.config.name}_best", "search": None, "scale": PAPER, "imports": imports}
    kept = {"name": node["name"], **_told(node, defaults())}
    head = f"# The best configuration that the search {sweep.sweep_id} found on the images it held out.\n"
    return head + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def _named_by_path(entry: str, folder: Path) -> str:
    """An entry of `imports` as it can be found from anywhere."""
    file = folder / (entry if entry.endswith(".py") else f"{entry}.py")
    return str(file.absolute()) if entry.endswith(".py") or file.is_file() else entry


def _told(node: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """What is not as it is where nobody says."""
    kept = {}
    for key, value in node.items():
        whole = not isinstance(value, dict) or not isinstance(usual.get(key), dict) or "name" in value
        part = value if whole else _told(value, usual[key])
        if value != usual.get(key) and part != {}:
            kept[key] = part
    return kept
