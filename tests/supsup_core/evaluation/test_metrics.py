"""Metrics, compared with values computed by hand."""

import pytest

from supsup_core.evaluation import metrics


def test_backward_transfer_is_the_mean_change_since_each_task_was_learned() -> None:
    assert metrics.backward_transfer([0.9, 0.8], [0.7, 0.9]) == pytest.approx(((0.7 - 0.9) + (0.9 - 0.8)) / 2)


def test_backward_transfer_needs_a_task_before_the_last() -> None:
    with pytest.raises(ValueError, match="before the last task"):
        metrics.backward_transfer([], [])


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
