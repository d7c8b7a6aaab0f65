"""Compares the accuracies of a sweep with published accuracies, and gives a verdict on each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import pandas as pd
import yaml

from orchestrator.base.keys import content_key
from orchestrator.base.plain_values import Node
from orchestrator.base.wording import count
from orchestrator.sweeps.training_groups import Group
from supsup_core.errors import InputError

Confidence: TypeAlias = Literal["quoted", "digitised", "second_hand"]
"""How a published number is known: stated by the authors, read off a plot, or as later papers report it."""

COLUMNS = [
    "run", "tasks", "seeds", "published %", "ours %", "difference", "low", "high", "tolerance", "verdict", "source",
    "curve", "confidence", "key",
]  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """Published accuracies of one experiment.

    `source`: where the accuracies were published, such as a figure. `name`: the method and scenario, which are unique
    within the source. `what`: settings, by dotted key, that identify the experiment. `fixed`: further settings of the
    published experiment. `free`: settings that may differ, each with the reason. `accuracy`: maps the number of tasks
    learned to the published accuracy in percent. `tolerance`: the largest difference, in percentage points, that still
    counts as reproduced. `unavailable`: why the experiment cannot be run with the data at hand, or None.
    """

    source: str
    name: str
    confidence: Confidence
    what: Node
    fixed: Node
    free: Mapping[str, str]
    accuracy: Mapping[int, float]
    tolerance: float
    unavailable: str | None = None

    @property
    def key(self) -> str:
        """A hash of everything on which a verdict depends: the settings, the accuracies and the tolerance."""
        settings = [self.what, self.fixed, sorted(self.free)]
        return content_key([*settings, sorted(self.accuracy.items()), self.tolerance], 12)

    def is_of(self, node: Node) -> bool:
        """Returns whether the curve belongs to the experiment with the config `node`. Compares only `what`."""
        settings = flat_settings(node)
        return all(settings.get(key) == wanted for key, wanted in self.what.items())

    def differences(self, node: Node) -> list[str]:
        """Returns a phrase for each setting of an experiment that the published experiment did not have.

        A setting that the curve names nowhere counts as different, because nobody has decided whether it may differ.
        node: the config of an experiment to which the curve belongs.
        """
        settings = flat_settings(node)
        found = [
            f"{key} is {settings.get(key)}, not {wanted}"
            for key, wanted in self.fixed.items()
            if settings.get(key) != wanted
        ]
        named = {*self.what, *self.fixed, *self.free}
        unknown = sorted(settings.keys() - named)
        return found or [f"{key} is not among the settings of the published curve" for key in unknown]


def flat_settings(node: Node) -> Node:
    """Returns an experiment's config as values by dotted key.

    If a dataset has no settings, the config holds the dataset's name in place of a mapping. The result then has the
    name under the key that a mapping would give it, `benchmark.base.name`.
    """
    found: Node = {}

    def add(value: Any, prefix: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(inner, f"{prefix}.{key}" if prefix else str(key))
        else:
            found[f"{prefix}.name" if prefix == "benchmark.base" else prefix] = value

    add(node, "")
    return found


@cache
def curves() -> tuple[Curve, ...]:
    """Returns the published curves in published.yaml."""
    return read_curves((Path(__file__).parent / "published.yaml").read_text())


def read_curves(text: str) -> tuple[Curve, ...]:
    """Reads published curves from YAML.

    Raises InputError, with the number and source of the curve, if a key is missing or unknown, if the confidence is
    unknown, if `fixed` is empty, if a free setting has no reason, or if a curve names a setting twice.
    """
    return tuple(_curve(number, entry) for number, entry in enumerate(yaml.safe_load(text)["curves"], start=1))


_KEYS = ("source", "name", "confidence", "what", "fixed", "free", "accuracy", "tolerance")


def _curve(number: int, entry: Node) -> Curve:
    where = f"published.yaml: curve {number} ({entry.get('source', 'without a source')})"
    if missing := [key for key in _KEYS if key not in entry]:
        raise InputError(f"{where}: {missing[0]} is missing; add this key")
    if unknown := sorted(entry.keys() - {*_KEYS, "unavailable"}):
        raise InputError(f"{where}: {unknown[0]} is an unknown key; remove it")
    if entry["confidence"] not in get_args(Confidence):
        raise InputError(f"{where}: confidence must be one of {', '.join(get_args(Confidence))}")
    if not entry["fixed"]:
        raise InputError(f"{where}: fixed is empty; name the settings of the published experiment")
    if unexplained := [key for key, reason in entry["free"].items() if not reason]:
        raise InputError(f"{where}: free.{unexplained[0]} has no reason; say why this setting may differ")
    times = Counter([*entry["what"], *entry["fixed"], *entry["free"]])
    if twice := [key for key, found in times.items() if found > 1]:
        raise InputError(f"{where}: {twice[0]} is in two of what, fixed and free; remove one of the two")
    return Curve(**entry)


def verdict(low: float, high: float, tolerance: float, num_seeds: int) -> str:
    """Returns the verdict on a difference (ours minus published) with the 95 % interval from `low` to `high`.

    `reproduced`: the whole interval is within the tolerance. `better`, `short`: the whole interval is above or below
    the tolerance. Otherwise, or without an interval, the verdict is `not decided`.
    """
    if low >= -tolerance and high <= tolerance:
        return "reproduced"
    if low > tolerance:
        return "better"
    if high < -tolerance:
        return "short"
    return f"not decided ({count(num_seeds, 'seed')})"


def published_table(groups: Sequence[Group], summary: pd.DataFrame) -> pd.DataFrame:
    """Returns a table of verdicts, with one row per run label and published accuracy that the sweep has reached.

    Accuracies are in percent. The difference (ours minus published) is in percentage points, with its 95 % interval
    over our seeds. If an experiment differs from the published one in a setting, the verdict is `not comparable`,
    followed by these settings. If some of the planned seeds have no result yet, the verdict is `unfinished`. summary: a
    table that `tables.summary_table` has returned.
    """
    accuracy = summary[summary["metric"] == "accuracy"]
    measured = {(row["run"], row["num_learned"]): row for row in accuracy.to_dict("records")}
    planned = Counter(run.label for group in groups for run in group.runs)
    rows = []
    for label, node in _experiments(groups):
        for curve in curves():
            if not curve.is_of(node):
                continue
            different = curve.differences(node)
            for n, theirs in curve.accuracy.items():
                ours = measured.get((label, n))
                if ours is None:
                    continue
                mean, low, high = (100 * float(ours[name]) for name in ("mean", "low", "high"))
                seeds = int(ours["num_seeds"])
                if different:
                    found = f"not comparable: {'; '.join(different)}"
                elif seeds < planned[label]:
                    found = f"unfinished ({seeds} of {count(planned[label], 'seed')})"
                else:
                    found = verdict(low - theirs, high - theirs, curve.tolerance, seeds)
                cells = (
                    label, n, seeds, theirs, round(mean, 2), round(mean - theirs, 2), round(low - theirs, 2),
                    round(high - theirs, 2), curve.tolerance, found, curve.source, curve.name, curve.confidence,
                    curve.key,
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
