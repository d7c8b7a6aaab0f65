"""The accuracies that the paper published, compared with those of a sweep."""

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
    """Published accuracies in percent, by the number of tasks learned.

    `what`: settings that identify the experiment. `conditions`: further settings that a fair comparison needs. Both are
    by dotted keys. `tolerance`: the largest difference of a reproduction, in percentage points.
    """

    source: str
    what: Node
    conditions: Node
    accuracy: Mapping[int, float]
    tolerance: float

    def other_conditions(self, node: Node) -> list[str]:
        """The conditions that an experiment does not meet, each as a sentence."""
        found = {key: _value(node, key) for key in self.conditions}
        return [
            f"{key} is {found[key]}, not {wanted}" for key, wanted in self.conditions.items() if found[key] != wanted
        ]

    def is_of(self, node: Node) -> bool:
        """Whether the curve is of this experiment. The conditions do not matter."""
        return all(_value(node, key) == wanted for key, wanted in self.what.items())


@cache
def curves() -> tuple[Curve, ...]:
    """The curves of published.yaml."""
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
    """The value of an experiment at a dotted key, or None. A dataset without settings is given as its name alone."""
    for part in key.split("."):
        if isinstance(node, dict):
            node = node.get(part)
        elif part != "name":
            return None
    return node


def verdict(difference: float, tolerance: float) -> str:
    """`reproduced` when the difference (ours minus the published) is within the tolerance, else `better` or `short`."""
    if abs(difference) <= tolerance:
        return "reproduced"
    return "better" if difference > 0 else "short"


def published_table(groups: Sequence[Group], summary: pd.DataFrame) -> pd.DataFrame:
    """One row per run label and published accuracy of it: both in percent, their difference and its tolerance.

    The difference, ours minus the published, is in percentage points, with the 95 % interval over our seeds. Where
    conditions differ, the verdict is `not comparable` and names them.
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
    """The label and the experiment of each run, once for all seeds."""
    seen: set[str] = set()
    for group in groups:
        for run in group.runs:
            if run.label not in seen:
                seen.add(run.label)
                yield run.label, run.experiment.node
