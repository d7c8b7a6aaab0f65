"""What the rows of a ledger are as points of MLflow's runs: each with the time at which its row was written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

from orchestrator.records.ledger import Row
from orchestrator.sweeps.training_groups import Group

Point = tuple[str, int, float, int]
"""A metric's name, step and value, and its Unix time in ms."""


def training_points(group: Group, row: Row) -> list[Point]:
    """A row as points: loss by batches seen by the group, the rest by task or, in NNs, by tasks' worth of data."""
    if row.kind in ("decision", "met"):
        return _stream_points(group, row)
    if row.kind != "trained":
        return []
    facts, task = row.payload["facts"], row.payload["facts"]["task"]
    first = task * group.experiment.training.num_batches
    points = [("loss", first + batch, loss, row.time_ms) for batch, loss in zip(*facts["curve"], strict=True)]
    if facts["accuracy"] is not None:
        points.append(("task_accuracy", task, facts["accuracy"], row.time_ms))
    if row.payload["seconds"]:
        points.append(("task_seconds", task, row.payload["seconds"], row.time_ms))
        points.append(("images_per_second", task, facts["num_images"] / row.payload["seconds"], row.time_ms))
    return points


def _stream_points(group: Group, row: Row) -> list[Point]:
    """A decision or the books of NNs as points."""
    payload, experiment = row.payload, group.experiment
    assert experiment.allocation is not None
    if row.kind == "decision":
        batches = (payload["ordinal"] + 1) * experiment.allocation.stream.segment_batches
        return [] if payload["loss"] is None else [("loss", batches, payload["loss"], row.time_ms)]
    n = payload["num_learned"]
    points = [(name, n, value, row.time_ms) for name, value in payload["metrics"].items()]
    points.append(("decision_latency", n, payload["latency"], row.time_ms))
    if payload["seconds"]:
        images = experiment.training.num_batches * experiment.training.batch_size
        points.append(("task_seconds", n, payload["seconds"], row.time_ms))
        points.append(("images_per_second", n, images / payload["seconds"], row.time_ms))
    return points


class Means:
    """The accuracy of each configuration of a sweep over its seeds: what the sweep's own run shows.

    It is named `accuracy`, or `accuracy/` and the configuration where there are several, and comes once every seed has
    come to a point.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self._seeds: dict[str, list[str]] = {}
        self._labels: dict[str, str] = {}
        self._found: dict[tuple[str, int], dict[str, Row]] = {}
        for run in (run for group in groups for run in group.runs):
            self._seeds.setdefault(run.label, []).append(run.run_id)
            self._labels[run.run_id] = run.label

    def add(self, row: Row) -> list[Point]:
        """Take a `point` row; the mean that it completes, if it does."""
        label, n = self._labels.get(row.payload["run_id"]), row.payload["num_learned"]
        if label is None:  # of a run that is no longer asked for
            return []
        found = self._found.setdefault((label, n), {})
        found[row.payload["run_id"]] = row
        if len(found) < len(self._seeds[label]):
            return []
        rows = [found[run_id] for run_id in self._seeds[label]]
        mean = fmean(row.payload["metrics"]["accuracy"] for row in rows)
        return [(self._name(label), n, mean, max(row.time_ms for row in rows))]

    def _name(self, label: str) -> str:
        return "accuracy" if len(self._seeds) == 1 else f"accuracy/{_plain(label)}"


def _plain(text: str) -> str:
    """Text as MLflow takes it in the name of a metric."""
    return re.sub(r"[^\w/.\- :]", "_", text.replace("=", ":"))[:200]
