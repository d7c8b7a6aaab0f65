"""Runs side by side in the terminal: what they differ in, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.sweeps.lookup import all_runs, the_one
from supsup_core.errors import InputError

_SHARES = ("accuracy", "inference", "forgetting", "purity", "share")
"""Metrics whose names hold one of these are shares, which people read in percent."""


def compare(wanted: Sequence[str], output: Path) -> int:
    """Print the keys in which runs differ, and their metrics at the last number of tasks that all of them have."""
    runs = all_runs(output)
    chosen = [the_one(word, runs) for word in wanted]
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
