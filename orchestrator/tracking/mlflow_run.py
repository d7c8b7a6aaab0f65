"""Adds metric points and tags to an MLflow run. Adding the same point again changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from mlflow.entities import Metric, RunTag

from orchestrator.tracking.mlflow_points import MetricPoint, is_own_metric

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH_SIZE = 900
"""The maximum number of points in one log_batch call. MLflow accepts at most 1000."""

DESCRIBED = "supsup.described"
"""The tag that marks a run whose params, config and dataset have been logged."""


@final
class MLflowRun:
    """Adds only missing points to an MLflow run, so that no crash or resume loses or duplicates a point.

    `tags`, `params`, `status`: the values in MLflow. Code that changes a value in MLflow must also change the
    attribute.
    """

    def __init__(self, client: MlflowClient, found: Any) -> None:
        """found: an mlflow.entities.Run. `log` reads a metric's existing points before it adds the first new point."""
        self.run_id: str = found.info.run_id
        self.tags: dict[str, str] = dict(found.data.tags)
        self.params: dict[str, str] = dict(found.data.params)
        self.status: str = found.info.status
        self._client = client
        self._own = sorted(filter(is_own_metric, found.data.metrics))
        self._unread = set(found.data.metrics)
        self._written: dict[tuple[str, int], float] = {}

    def points(self) -> list[MetricPoint]:
        """Read the points of all metrics that this project writes. `log` then does not read these metrics again."""
        return [point for name in self._own for point in self._read(name)]

    def log(self, points: Iterable[MetricPoint], *, correct: bool = False) -> None:
        """Add the points that the run does not have yet, synchronously. A point is identified by its metric and step.

        correct: also add points whose value has changed. MLflow shows the value that was added last.
        """
        missing: dict[tuple[str, int], MetricPoint] = {}
        for point in points:
            if point.name in self._unread:
                self._read(point.name)
            place = point.name, point.step
            if place not in self._written or (correct and self._written[place] != point.value):
                missing.setdefault(place, point)
        log_points(self._client, self.run_id, list(missing.values()))
        self._written |= {place: point.value for place, point in missing.items()}  # not reached if a write fails

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set those tags whose value differs from the run's."""
        changed = {key: value for key, value in tags.items() if self.tags.get(key) != value}
        if changed:
            self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in changed.items()])
            self.tags |= changed

    def _read(self, name: str) -> list[MetricPoint]:
        """Read the existing points of a metric from MLflow, so that `log` does not add them again."""
        found = read_points(self._client, self.run_id, name)
        self._written |= {(name, point.step): point.value for point in found}
        self._unread.discard(name)
        return found


def read_points(client: MlflowClient, run_id: str, name: str) -> list[MetricPoint]:
    """Returns all points of one metric of an MLflow run, sorted by time."""
    history = client.get_metric_history(run_id, name)
    return sorted(
        (MetricPoint(name, int(point.step), point.value, int(point.timestamp)) for point in history),
        key=lambda point: point.time_ms,
    )


def log_points(client: MlflowClient, run_id: str, points: Sequence[MetricPoint]) -> None:
    """Add points to an MLflow run, synchronously. MLflow ignores a point that the run already has with the same
    time."""
    for start in range(0, len(points), BATCH_SIZE):
        batch = points[start : start + BATCH_SIZE]
        client.log_batch(run_id, metrics=[Metric(name, value, time_ms, step) for name, step, value, time_ms in batch])
