"""Converts ledger rows to MLflow metric points. The time of a point is the time at which its row was written."""

from __future__ import annotations

import functools
import re
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import Literal, NamedTuple, final

from orchestrator.base.keys import content_key
from orchestrator.records.rows import AnyRow, PointCompleted, Row, SegmentDecided, ShardTrained, TasksMet
from orchestrator.sweeps.training_groups import Group
from supsup_core.evaluation.metrics import AllocationTally


class RunKey(NamedTuple):
    """Names an MLflow run of a sweep. `id`: the id of the sweep, of the training group, or of the evaluated run."""

    kind: Literal["sweep", "training", "evaluation"]
    id: str


class MetricPoint(NamedTuple):
    """One value of a metric. `step`: the x coordinate in MLflow's charts. `time_ms`: Unix time in milliseconds."""

    name: str
    step: int
    value: float
    time_ms: int

    @property
    def text(self) -> str:
        """The point's metric, step and time, for a message."""
        written = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.time_ms / 1000))
        return f"{self.name} at step {self.step} ({written})"


_OWN_METRICS = {
    "loss", "task_accuracy", "task_seconds", "images_per_second", "decision_latency",
    "accuracy", "forgetting", "backward_transfer", "task_inference_accuracy", "mask_recovery", "accuracy_labels_shared",
    "num_bytes", *AllocationTally().metrics(), "margin",
}  # fmt: skip


def is_own_metric(name: str) -> bool:
    """Returns whether this project writes a metric of this name. Users and MLflow may add metrics of other names."""
    return name.startswith("accuracy/") or name.removesuffix("_strict") in _OWN_METRICS


def training_points(group: Group, row: AnyRow) -> list[MetricPoint]:
    """Returns the metric points of a row for the MLflow run of the row's training group.

    For a loss, MLflow's step is the number of training batches up to this loss, in the order of the tasks or
    decisions. For any other metric, MLflow's step is the task's number or, in scenario NNs, the amount of training
    data, measured in tasks. Returns an empty list for a row without such metrics.
    """
    match row.event:
        case ShardTrained() as event:
            return _trained_points(group, event, row.time_ms)
        case SegmentDecided() as event:
            return _decision_points(group, event, row.time_ms)
        case TasksMet() as event:
            return _allocation_points(group, event, row.time_ms)
        case _:
            return []


def _trained_points(group: Group, event: ShardTrained, time_ms: int) -> list[MetricPoint]:
    facts, task = event.facts, event.facts.task
    first = task * group.experiment.training.num_batches
    points = [MetricPoint("loss", first + batch, loss, time_ms) for batch, loss in zip(*facts.curve, strict=True)]
    if facts.accuracy is not None:
        points.append(MetricPoint("task_accuracy", task, facts.accuracy, time_ms))
    if event.seconds:
        points.append(MetricPoint("task_seconds", task, event.seconds, time_ms))
        points.append(MetricPoint("images_per_second", task, facts.num_images / event.seconds, time_ms))
    return points


def _decision_points(group: Group, event: SegmentDecided, time_ms: int) -> list[MetricPoint]:
    allocation = group.experiment.allocation
    assert allocation is not None
    if event.loss is None:
        return []
    return [MetricPoint("loss", (event.ordinal + 1) * allocation.stream.segment_batches, event.loss, time_ms)]


def _allocation_points(group: Group, event: TasksMet, time_ms: int) -> list[MetricPoint]:
    n, training = event.num_learned, group.experiment.training
    points = [MetricPoint(name, n, value, time_ms) for name, value in event.metrics.items()]
    points.append(MetricPoint("decision_latency", n, event.latency, time_ms))
    if event.seconds:
        images = training.num_batches * training.batch_size
        points.append(MetricPoint("task_seconds", n, event.seconds, time_ms))
        points.append(MetricPoint("images_per_second", n, images / event.seconds, time_ms))
    return points


@final
class SeedMeans:
    """Computes each configuration's mean accuracy over seeds, which is logged to the sweep's MLflow run.

    The metric is `accuracy`, or `accuracy/CONFIGURATION` if the sweep has several configurations. A mean is computed
    when the runs of all seeds have completed the evaluation point. The mean's time is the time of the last row.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self._seeds: dict[str, list[str]] = {}
        self._labels: dict[str, str] = {}
        self._found: dict[tuple[str, int], dict[str, Row[PointCompleted]]] = {}
        for run in (run for group in groups for run in group.runs):
            self._seeds.setdefault(run.label, []).append(run.run_id)
            self._labels[run.run_id] = run.label

    def add(self, row: Row[PointCompleted]) -> list[MetricPoint]:
        """Add an evaluation point of a run. Returns the mean if all seeds have this point, else an empty list.

        If a run has several rows of the same evaluation point, the first one counts, as in `GroupState`.
        """
        event = row.event
        label, n = self._labels.get(event.run_id), event.num_learned
        if label is None:  # the run is no longer part of the sweep
            return []
        found = self._found.setdefault((label, n), {})
        found.setdefault(event.run_id, row)
        if len(found) < len(self._seeds[label]):
            return []
        rows = [found[run_id] for run_id in self._seeds[label]]
        mean = fmean(row.event.metrics["accuracy"] for row in rows)
        return [MetricPoint(self._names[label], n, mean, max(row.time_ms for row in rows))]

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        """The metric's name for each configuration."""
        if len(self._seeds) == 1:
            return dict.fromkeys(self._seeds, "accuracy")
        return {label: f"accuracy/{name}" for label, name in metric_names(self._seeds).items()}


@final
class Projection:
    """Converts the rows of a sweep's ledgers to the metric points of the sweep's MLflow runs.

    If several rows give a point of the same metric and step, for example because a task was trained again, the first
    one counts.
    """

    def __init__(self, sweep_id: str, groups: Sequence[Group]) -> None:
        self._groups = {group.group_id: group for group in groups}
        self._runs = {run.run_id for group in groups for run in group.runs}
        self._parent = RunKey("sweep", sweep_id)
        self._means = SeedMeans(groups)

    def points(self, rows: Mapping[str, Sequence[AnyRow]]) -> dict[RunKey, list[MetricPoint]]:
        """Returns the points of new rows, by MLflow run. rows: maps a group's id to the next rows of its ledger."""
        found: dict[RunKey, list[MetricPoint]] = {}
        for group_id, its_rows in rows.items():
            for row in its_rows:
                event = row.event
                if isinstance(event, PointCompleted):
                    if event.run_id in self._runs:
                        points = [MetricPoint(name, event.num_learned, value, row.time_ms)
                                  for name, value in event.metrics.items()]  # fmt: skip
                        found.setdefault(RunKey("evaluation", event.run_id), []).extend(points)
                        means = self._means.add(Row(row.seq, row.time_ms, event))
                        found.setdefault(self._parent, []).extend(means)
                elif points := training_points(self._groups[group_id], row):
                    found.setdefault(RunKey("training", group_id), []).extend(points)
        return found


def metric_names(texts: Collection[str]) -> dict[str, str]:
    """Returns a valid MLflow metric name for each text: the text, shortened, and with `_` for characters that MLflow
    refuses.

    MLflow refuses some characters, and names that are not normal paths, such as `a//b`. If texts would get the same
    name, a hash of the text is added to each.
    """
    names = {text: _valid(text) for text in texts}
    times = Counter(name.lower() for name in names.values())  # some databases do not distinguish upper and lower case
    return {
        text: name if times[name.lower()] == 1 else f"{name} {content_key(text, 6)}" for text, name in names.items()
    }


def _valid(text: str) -> str:
    allowed = re.sub(r"[^\w/.\- :]", "_", text.replace("=", ":"))[:200]
    return "/".join(part if part not in ("", ".", "..") else "_" for part in allowed.split("/"))
