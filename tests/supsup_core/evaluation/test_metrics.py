"""Metrics against values worked out by hand."""

import pytest

from supsup_core.evaluation import metrics


def test_forgetting_is_the_drop_from_the_best_earlier_accuracy() -> None:
    matrix = {1: {0: 0.9}, 2: {0: 0.95, 1: 0.8}, 3: {0: 0.7, 1: 0.9, 2: 0.6}}
    assert metrics.forgetting(matrix, 1) == 0
    assert metrics.forgetting(matrix, 2) == pytest.approx(-0.05)
    assert metrics.forgetting(matrix, 3) == pytest.approx(((0.95 - 0.7) + (0.8 - 0.9)) / 2)


def test_forgetting_counts_every_task_that_was_tested_before_however_many_were_learned() -> None:
    """Streams that mix tasks test more of them than they have learned whole."""
    matrix = {2: {0: 0.5, 3: 0.8, 4: 0.9}, 5: {0: 0.5, 1: 0.1, 3: 0.4, 4: 0.6}}
    assert metrics.forgetting(matrix, 5) == pytest.approx((0 + 0.4 + 0.3) / 3)


def test_average_accuracy_counts_tasks_alike() -> None:
    assert metrics.average_accuracy([1.0, 0.5, 0.0]) == 0.5
