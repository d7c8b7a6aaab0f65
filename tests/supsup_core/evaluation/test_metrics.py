"""Metrics, compared with values computed by hand."""

import pytest

from supsup_core.evaluation import metrics


def test_forgetting_is_the_drop_from_the_best_earlier_accuracy() -> None:
    matrix = {1: {0: 0.9}, 2: {0: 0.95, 1: 0.8}, 3: {0: 0.7, 1: 0.9, 2: 0.6}}
    assert metrics.forgetting(matrix, 1) == 0
    assert metrics.forgetting(matrix, 2) == pytest.approx(-0.05)
    assert metrics.forgetting(matrix, 3) == pytest.approx(((0.95 - 0.7) + (0.8 - 0.9)) / 2)


def test_forgetting_is_over_all_tasks_that_were_tested_before() -> None:
    """With a stream that mixes tasks, an evaluation includes tasks that are not completely learned yet."""
    matrix = {2: {0: 0.5, 3: 0.8, 4: 0.9}, 5: {0: 0.5, 1: 0.1, 3: 0.4, 4: 0.6}}
    assert metrics.forgetting(matrix, 5) == pytest.approx((0 + 0.4 + 0.3) / 3)


def test_average_accuracy_weights_tasks_equally() -> None:
    assert metrics.average_accuracy([1.0, 0.5, 0.0]) == 0.5


def test_the_tally_counts_duplicates_wrong_reuses_and_untrained_segments() -> None:
    tally = metrics.AllocationTally()
    for task, mask in [(0, 0), (0, 0), (1, 1), (0, 2), (1, 0), (2, None)]:
        tally.add(task, mask, None)
    assert tally.metrics() == {
        "masks": 3, "duplicates": 1, "wrong_reuses": 1, "purity": 4 / 5, "segments_not_trained": 1,
        "untrained_share": 1 / 6,
    }  # fmt: skip
    assert dict(tally.owners) == {0: 0, 1: 1, 2: 0}
    tally.add(3, 3, freed=0)
    assert dict(tally.owners) == {1: 1, 2: 0, 3: 3}
    assert tally.metrics()["masks"] == 3
