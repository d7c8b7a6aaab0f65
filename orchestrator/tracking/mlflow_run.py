"""Adds metric points and tags to an MLflow run. Adding the same point again changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, final

from mlflow.entities import Metric, RunTag

from orchestrator.tracking.mlflow_points import MetricPoint

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH_SIZE = 900
"""The maximum number of points in one log_batch call. MLflow accepts at most 1000."""

DESCRIBED = "supsup.described"
"""The tag that marks a run whose params, config and dataset have been logged."""


@final
class MLflowRun:
    """Adds only missing points to an MLflow run, so that no crash or resume loses or duplicates a point."""

    def __init__(self, client: MlflowClient, found: Any) -> None:
        """found: an mlflow.entities.Run. `log` reads a metric's existing points before it adds the first new point."""
        self.run_id: str = found.info.run_id
        self.is_described = DESCRIBED in found.data.tags
        self._client = client
        self._tags: dict[str, str] = dict(found.data.tags)
        self._unread = set(found.data.metrics)
        self._written: dict[tuple[str, int], float] = {}

    def log(self, points: Iterable[MetricPoint], *, correct: bool = False) -> None:
        """Add the points that the run does not have yet, synchronously. A point is identified by its metric and step.

        correct: also add points whose value has changed. MLflow shows the value that was added last.
        """
        missing: dict[tuple[str, int], Metric] = {}
        for name, step, value, time_ms in points:
            if name in self._unread:
                self._read(name)
            if (name, step) not in self._written or (correct and self._written[name, step] != value):
                missing.setdefault((name, step), Metric(name, value, time_ms, step))
        places = list(missing)
        for start in range(0, len(places), BATCH_SIZE):
            batch = places[start : start + BATCH_SIZE]
            self._client.log_batch(self.run_id, metrics=[missing[place] for place in batch])
            self._written |= {place: missing[place].value for place in batch}  # not reached if log_batch raises

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set those tags whose value differs from the run's."""
        changed = {key: value for key, value in tags.items() if self._tags.get(key) != value}
        if changed:
            self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in changed.items()])
            self._tags |= changed

    def _read(self, name: str) -> None:
        """Read the existing points of a metric from MLflow, so that `log` does not add them again."""
        history = self._client.get_metric_history(self.run_id, name)
        self._written |= {
            (name, point.step): point.value for point in sorted(history, key=lambda point: int(point.timestamp))
        }
        self._unread.remove(name)
