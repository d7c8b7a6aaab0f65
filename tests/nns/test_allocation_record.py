"""The allocation metrics of an NNs run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.nns.allocation_record import AllocationRecord
from orchestrator.records.rows import Row, SegmentDecided
from tests.records.samples import DECIDED

ROWS = [
    replace(DECIDED, task=0, mask=0, margin=-1.0, latency=0.5, seconds=1.0),
    replace(DECIDED, task=0, mask=0, outcome="train", margin=1.0, latency=0.5, seconds=1.0),
    replace(DECIDED, task=1, mask=1, margin=-3.0, latency=0.25, seconds=3.0),
    replace(DECIDED, task=1, mask=1, outcome="train", margin=5.0, latency=0.75, seconds=5.0),
]


def rows(events: list[SegmentDecided]) -> list[Row[SegmentDecided]]:
    return [Row(number, number, event) for number, event in enumerate(events, start=1)]


def test_metrics_cover_as_many_last_segments_as_one_task_has() -> None:
    record = AllocationRecord(segments_per_task=2)
    record.replay(rows(ROWS))
    met = record.tasks_met(2)
    assert (met.num_learned, met.latency, met.seconds) == (2, 0.5, 8.0)
    assert met.metrics["margin"] == pytest.approx(1.0)
    assert met.metrics["masks"] == 2


def test_live_masks_belong_to_the_tasks_they_were_allocated_for() -> None:
    record = AllocationRecord(segments_per_task=2)
    record.replay(rows([*ROWS, replace(DECIDED, task=2, outcome="reclaim", mask=2, freed=0)]))
    assert dict(record.owners) == {1: 1, 2: 2}
