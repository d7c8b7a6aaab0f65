"""Runs side by side in the terminal: what they differ in, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.records.group_state import read_states
from orchestrator.sweeps.sweep import Sweep, all_sweeps
from orchestrator.sweeps.training_groups import Group, Run
from supsup_core.errors import InputError

_SHARES = ("accuracy", "inference", "forgetting", "purity", "share")
"""Metrics whose names hold one of these are shares, which people read in percent."""


@dataclass(frozen=True)
class Measured:
    """A run of a sweep with the metrics of its points, by the number of tasks learned."""

    sweep: Sweep
    group: Group
    run: Run
    points: Mapping[int, Mapping[str, float]]

    @property
    def name(self) -> str:
        return f"{self.sweep.sweep_id}: {self.run.name}"


def compare(wanted: Sequence[str], output: Path) -> int:
    """Print the keys in which runs differ, and their metrics at the last number of tasks that all of them have."""
    runs = _all_runs(output)
    chosen = [_the_one(word, runs) for word in wanted]
    if len({(run.sweep.sweep_id, run.run.run_id) for run in chosen}) < max(2, len(chosen)):
        raise InputError("command line: name two different runs, by words of their names as `supsup plan` shows them")
    common = set.intersection(*(set(run.points) for run in chosen))
    if not common:
        told = "; ".join(f"{run.name} has {sorted(run.points) or 'none'}" for run in chosen)
        raise InputError(f"these runs share no number of tasks that is evaluated: {told}")
    n = max(common)
    letters = [chr(ord("A") + number) for number in range(len(chosen))]
    for letter, run in zip(letters, chosen, strict=True):
        print(f"{letter}  {run.name}")
    rows = [["", *letters]]
    flat = [_flat(run.run.experiment.node) | {"seed": run.run.experiment.seed} for run in chosen]
    for key in sorted(set().union(*flat)):
        values = [str(node.get(key, "–")) for node in flat]
        if len(set(values)) > 1:
            rows.append([key, *values])
    rows.append([f"after {n} tasks", *([""] * len(chosen))])
    for metric in sorted(set().union(*(run.points[n] for run in chosen))):
        rows.append([f"  {metric}", *(_shown(metric, run.points[n].get(metric)) for run in chosen)])
    _print_aligned(rows)
    return 0


def _all_runs(output: Path) -> list[Measured]:
    found = []
    for sweep in all_sweeps(output, lambda error: print(f"supsup: left out: {error}", file=sys.stderr)):
        states = read_states(sweep)
        try:
            groups = sweep.plan()
        except InputError as error:
            print(f"supsup: {sweep.sweep_id} is left out: {error}", file=sys.stderr)
            continue
        for group in groups:
            state = states.get(group.group_id)
            for run in group.runs:
                rows = {} if state is None else state.points
                points = {n: row.payload["metrics"] for (run_id, n), row in rows.items() if run_id == run.run_id}
                found.append(Measured(sweep, group, run, points))
    if not found:
        raise InputError(f"{output}: no sweep here; start one with `supsup sweep FILE`, or set output=DIR")
    return found


def find_run(word: str, output: Path) -> Measured:
    """The run of an output that is named: in full, by its id, by whole words of its name and the beginning of its
    sweep's, or by parts of words, whatever fits first; InputError when nothing does, or several do."""
    return _the_one(word, _all_runs(output))


def _the_one(word: str, runs: Sequence[Measured]) -> Measured:
    parts = word.split()

    def by_words(run: Measured) -> bool:
        return all(part in run.run.name.split() or run.sweep.sweep_id.startswith(part) for part in parts)

    def by_parts(run: Measured) -> bool:
        return all(part in run.name for part in parts)

    fitting: list[Measured] = []
    for fits in (
        lambda run: word in (run.name, run.run.name) or run.run.run_id.startswith(word),
        by_words,
        by_parts,
    ):
        fitting = fitting or [run for run in runs if fits(run)]
    if len(fitting) == 1:
        return fitting[0]
    problem = "several runs fit" if fitting else "no such run"
    names = [f"{run.name!r} ({run.run.run_id})" for run in (fitting or runs)[:8]]
    more = f" and {len(fitting or runs) - 8} more" if len(fitting or runs) > 8 else ""
    raise InputError(f"{word!r}: {problem}; there are: {', '.join(names)}{more}")


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _shown(metric: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f} %" if any(part in metric for part in _SHARES) else f"{value:g}"


def _print_aligned(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [f"{cell:{'>' if column else '<'}{widths[column]}}" for column, cell in enumerate(row)]
        print("  ".join(cells).rstrip())
