"""Compares the points of an MLflow run with the points that the ledgers imply. Does not import MLflow."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import NamedTuple

from orchestrator.tracking.mlflow_points import MetricPoint


class Differences(NamedTuple):
    """The differences between an MLflow run and the ledgers. Points of one metric and step are at the same place.

    `missing`: points of the ledgers at places where MLflow has no point. `altered`: points of MLflow that have another
    value or time than the ledgers' point at this place. `unknown`: points of MLflow at places where the ledgers have no
    point. `has_common`: whether MLflow and the ledgers have a point with the same value and time. A common point shows
    that the run was written from these ledgers or their copies, and not from the ledgers of another output.
    """

    missing: list[MetricPoint]
    altered: list[MetricPoint]
    unknown: list[MetricPoint]
    has_common: bool

    @property
    def contradict(self) -> bool:
        """Whether MLflow has points that the ledgers do not imply. Points cannot be deleted from an MLflow run."""
        return bool(self.altered or self.unknown)


def compare_run(kind: str, wanted: Iterable[MetricPoint], found: Iterable[MetricPoint]) -> Differences:
    """Compares an MLflow run with the ledgers.

    kind: as in RunKey. wanted: the points that the ledgers imply, in the order of the rows. found: the points in MLflow
    of metrics that this project writes.
    """
    return _compare_means(wanted, found) if kind == "sweep" else _compare_points(wanted, found)


def _compare_points(wanted: Iterable[MetricPoint], found: Iterable[MetricPoint]) -> Differences:
    """Compares an MLflow run of a training group or of an evaluated run.

    Of several wanted points at one place, the first counts.
    """
    implied: dict[tuple[str, int], MetricPoint] = {}
    for point in wanted:
        implied.setdefault((point.name, point.step), point)
    altered, unknown, seen = [], [], set()
    has_common = False
    for point in found:
        place = point.name, point.step
        if place not in implied:
            unknown.append(point)
            continue
        seen.add(place)
        expected = implied[place]
        if point.time_ms != expected.time_ms or _stored(point.value) != _stored(expected.value):
            altered.append(point)
        else:
            has_common = True
    missing = [point for place, point in implied.items() if place not in seen]
    return Differences(missing, altered, unknown, has_common)


def _compare_means(wanted: Iterable[MetricPoint], found: Iterable[MetricPoint]) -> Differences:
    """Compares the MLflow run of a sweep, which holds means over seeds, with the ledgers.

    When an evaluation changes, the new mean is added with a later time, and MLflow shows the newest mean. Therefore
    only the newest value at each place counts. When configurations are added to the sweep, the metric of a mean can get
    another name. Therefore a mean under an earlier name is no fault.
    """
    implied = {(point.name, point.step): point for point in wanted}
    values = {(point.step, _stored(point.value)) for point in implied.values()}
    newest: dict[tuple[str, int], MetricPoint] = {}
    for point in sorted(found, key=lambda point: point.time_ms):
        newest[point.name, point.step] = point
    missing = [point for place, point in implied.items() if place not in newest]
    altered, unknown = [], []
    for place, point in newest.items():
        if place in implied:
            if _stored(point.value) != _stored(implied[place].value):
                altered.append(point)
        elif (point.step, _stored(point.value)) not in values:
            unknown.append(point)
    return Differences(missing, altered, unknown, has_common=False)  # the times of means are not compared


def _stored(value: float) -> float | None:
    """Returns a value as MLflow's database holds it: infinity becomes the largest float. Returns None for NaN."""
    return None if math.isnan(value) else max(-sys.float_info.max, min(value, sys.float_info.max))
