"""One MLflow run, to which metric points are added idempotently."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, final

from mlflow.entities import Metric

from orchestrator.tracking.mlflow_points import MetricPoint

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH_SIZE = 900
"""Points in one log_batch. MLflow accepts at most 1000."""

DESCRIBED = "supsup.described"
"""The tag of a run whose params, config and dataset are logged."""


@final
class MLflowRun:
    """Adds to a run the points that it lacks, so that no crash or resume loses or duplicates a point."""

    def __init__(self, client: MlflowClient, found: Any) -> None:
        """found: an mlflow.entities.Run. The points of a metric are read before the first is added to it."""
        self.run_id: str = found.info.run_id
        self.is_described = DESCRIBED in found.data.tags
        self._client = client
        self._unread = set(found.data.metrics)
        self._written: dict[tuple[str, int], float] = {}

    def log(self, points: Iterable[MetricPoint], *, correct: bool = False) -> None:
        """Add the points that the run lacks, synchronously. A point is identified by its metric and step.

        correct: add also points whose value has changed. MLflow shows the one that was added last.
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
            self._written |= {place: missing[place].value for place in batch}  # not reached when the batch raised

    def _read(self, name: str) -> None:
        """Read the points that the run has of a metric."""
        history = self._client.get_metric_history(self.run_id, name)
        self._written |= {
            (name, point.step): point.value for point in sorted(history, key=lambda point: int(point.timestamp))
        }
        self._unread.remove(name)
