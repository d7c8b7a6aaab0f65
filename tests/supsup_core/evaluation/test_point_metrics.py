"""The metrics of an evaluation point, computed from counts."""

from __future__ import annotations

import pytest

from supsup_core.evaluation.counts import ProtocolCounts
from supsup_core.evaluation.point_metrics import PointCounts, point_metrics


def counts(*accuracies: float) -> PointCounts:
    """Returns the counts of tasks with these accuracies, of 1000 images each."""
    hits = [round(1000 * accuracy) for accuracy in accuracies]
    return {task: {"paper": ProtocolCounts(1000, n, n, 1, 1, {str(task): 1})} for task, n in enumerate(hits)}


def test_forgetting_is_the_mean_drop_over_all_tasks_but_the_last() -> None:
    found = point_metrics("GG", counts(0.7, 0.5, 0.9), counts(0.9, 0.8))
    assert found["accuracy"] == pytest.approx(0.7)
    assert found["forgetting"] == pytest.approx(0.25)
    assert found["backward_transfer"] == pytest.approx(-0.25)


def test_without_change_forgetting_is_exactly_zero() -> None:
    found = point_metrics("GG", counts(0.7, 0.5), counts(0.7))
    assert str(found["forgetting"]) == "0.0"
    assert found["backward_transfer"] == 0


def test_forgetting_is_negative_if_tasks_have_improved() -> None:
    assert point_metrics("GG", counts(0.9, 0.5), counts(0.7))["forgetting"] == pytest.approx(-0.2)


def test_without_accuracies_when_learned_there_is_no_forgetting() -> None:
    assert point_metrics("GG", counts(0.9), {}).keys() == {"accuracy"}


def test_a_label_from_the_wrong_task_counts_as_forgotten_only_if_labels_are_not_shared() -> None:
    now = {task: {"paper": ProtocolCounts(1000, 900, 600, 1, 1, {"0": 1})} for task in (0, 1)}
    before = {0: {"paper": ProtocolCounts(1000, 900, 900, 1, 1, {"0": 1})}}
    assert point_metrics("GNs", now, before)["forgetting"] == 0
    assert point_metrics("GNu", now, before)["forgetting"] == pytest.approx(0.3)
