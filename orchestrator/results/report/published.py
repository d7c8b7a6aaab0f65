"""Compares the accuracies of a sweep with the accuracies published in the paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from orchestrator.base.plain_values import Node
from orchestrator.sweeps.training_groups import Group

COLUMNS = [
    "run", "tasks", "seeds", "published %", "ours %", "difference", "low", "high", "tolerance", "verdict", "source",
]  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """Published accuracies of one experiment.

    `source`: where the accuracies were published, such as a figure. `what`: settings, by dotted key, that identify the
    experiment. `conditions`: further settings that our experiment must have for a fair comparison. `accuracy`: maps the
    number of tasks learned to the published accuracy in percent. `tolerance`: the largest difference, in percentage
    points, that still counts as reproduced.
    """

    source: str
    what: Node
    conditions: Node
    accuracy: Mapping[int, float]
    tolerance: float

    def other_conditions(self, node: Node) -> list[str]:
        """Returns a phrase for each condition that an experiment does not meet. node: the experiment's config."""
        found = {key: _value(node, key) for key in self.conditions}
        return [
            f"{key} is {found[key]}, not {wanted}" for key, wanted in self.conditions.items() if found[key] != wanted
        ]

    def is_of(self, node: Node) -> bool:
        """Returns whether the curve belongs to the experiment with the config `node`. Does not compare `conditions`."""
        return all(_value(node, key) == wanted for key, wanted in self.what.items())


@cache
def curves() -> tuple[Curve, ...]:
    """Returns the published curves in published.yaml."""
    figures = yaml.safe_load((Path(__file__).parent / "published.yaml").read_text())
    return tuple(
        Curve(
            source=figure["source"],
            what={**figure["what"], **curve.get("what", {})},
            conditions={**figure["conditions"], **curve.get("conditions", {})},
            accuracy=curve["accuracy"],
            tolerance=curve["tolerance"],
        )
        for figure in figures
        for curve in figure["curves"]
    )


def _value(node: Any, key: str) -> Any:
    """Returns the value at a dotted key of an experiment's config, or None if there is no such key.

    If a dataset has no settings, the config holds the dataset's name in place of a mapping. For a dataset without
    settings, a key that ends in `.name` gives the dataset's name.
    """
    for part in key.split("."):
        if isinstance(node, dict):
            node = node.get(part)
        elif part != "name":
            return None
    return node


def verdict(difference: float, tolerance: float) -> str:
    """Returns `reproduced` if the difference (ours minus published) is within tolerance, else `better` or `short`."""
    if abs(difference) <= tolerance:
        return "reproduced"
    return "better" if difference > 0 else "short"


def published_table(groups: Sequence[Group], summary: pd.DataFrame) -> pd.DataFrame:
    """Returns a table of verdicts, with one row per run label and published accuracy.

    Accuracies are in percent. The difference (ours minus published) is in percentage points, with its 95 % interval
    over our seeds. If an experiment does not meet some conditions, the verdict is `not comparable`, followed by these
    conditions. summary: a table that `tables.summary_table` has returned.
    """
    accuracy = summary[summary["metric"] == "accuracy"]
    measured = {(row["run"], row["num_learned"]): row for row in accuracy.to_dict("records")}
    rows = []
    for label, node in _experiments(groups):
        for curve in curves():
            unmet = curve.other_conditions(node)
            for n, theirs in curve.accuracy.items():
                ours = measured.get((label, n)) if curve.is_of(node) else None
                if ours is not None:
                    mean, low, high = (100 * float(ours[name]) for name in ("mean", "low", "high"))
                    difference = round(mean - theirs, 2)
                    found = f"not comparable: {'; '.join(unmet)}" if unmet else verdict(difference, curve.tolerance)
                    cells = (
                        label, n, ours["num_seeds"], theirs, round(mean, 2), difference, round(low - theirs, 2),
                        round(high - theirs, 2), curve.tolerance, found, curve.source,
                    )  # fmt: skip
                    rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _experiments(groups: Sequence[Group]) -> Iterator[tuple[str, Node]]:
    """Yields each run label once, with the config of its experiment."""
    seen: set[str] = set()
    for group in groups:
        for run in group.runs:
            if run.label not in seen:
                seen.add(run.label)
                yield run.label, run.experiment.node
