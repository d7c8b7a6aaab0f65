"""What the paper published, beside what a sweep measured."""

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
    """Published accuracies in percent by the number of tasks learned. `what`: the experiment that they are of;
    `conditions`: what else must be so for a fair comparison, both by dotted keys; `tolerance`: in points."""

    source: str
    what: Mapping[str, Any]
    conditions: Mapping[str, Any]
    accuracy: Mapping[int, float]
    tolerance: float

    def other_conditions(self, node: Node) -> list[str]:
        """The conditions that an experiment does not meet, in words."""
        found = {key: _value(node, key) for key in self.conditions}
        return [
            f"{key} is {found[key]}, not {wanted}" for key, wanted in self.conditions.items() if found[key] != wanted
        ]

    def is_of(self, node: Node) -> bool:
        """Whether an experiment is the one that the curve is of, whatever the conditions."""
        return all(_value(node, key) == wanted for key, wanted in self.what.items())


@cache
def curves() -> tuple[Curve, ...]:
    """All that is known of the paper's figures."""
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
    """What stands in an experiment at a dotted key; None where nothing does. A base without fields is its name."""
    for part in key.split("."):
        if isinstance(node, dict):
            node = node.get(part)
        elif part != "name":
            return None
    return node


def verdict(difference: float, tolerance: float) -> str:
    """What a difference, ours minus the published, says: reproduced within the tolerance, else better or short."""
    if abs(difference) <= tolerance:
        return "reproduced"
    return "better" if difference > 0 else "short"


def published_table(groups: Sequence[Group], summary: pd.DataFrame) -> pd.DataFrame:
    """One row per run and published number of it: both, their difference with the 95 % interval of ours over the
    seeds (points), the tolerance and the verdict; where conditions differ, those instead of a verdict."""
    accuracy = summary[summary["metric"] == "accuracy"]
    measured = {(row["run"], row["num_learned"]): row for row in accuracy.to_dict("records")}
    rows = []
    for label, node in _experiments(groups):
        for curve in curves():
            others = curve.other_conditions(node)
            for n, theirs in curve.accuracy.items():
                ours = measured.get((label, n)) if curve.is_of(node) else None
                if ours is not None:
                    mean, low, high = (100 * float(ours[name]) for name in ("mean", "low", "high"))
                    difference = round(mean - theirs, 2)
                    said = f"not comparable: {'; '.join(others)}" if others else verdict(difference, curve.tolerance)
                    cells = (
                        label, n, ours["num_seeds"], theirs, round(mean, 2), difference, round(low - theirs, 2),
                        round(high - theirs, 2), curve.tolerance, said, curve.source,
                    )  # fmt: skip
                    rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _experiments(groups: Sequence[Group]) -> Iterator[tuple[str, Node]]:
    """Every label once, with its experiment: seeds share both."""
    seen: set[str] = set()
    for group in groups:
        for run in group.runs:
            if run.label not in seen:
                seen.add(run.label)
                yield run.label, run.experiment.node
