"""Confidence and calibration of masks, compared with hand-computed values and with scikit-learn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from supsup_core.evaluation.confidence import auroc, calibration_error, confidence
from supsup_core.methods import Learner


def test_confidence_equal_to_accuracy_has_no_calibration_error() -> None:
    confidences = torch.tensor([0.75] * 4 + [0.5] * 2)
    right = torch.tensor([True, True, True, False, True, False])
    assert calibration_error(confidences, right) == pytest.approx(0)


def test_the_calibration_error_weights_the_gap_of_each_bin_by_its_images() -> None:
    confidences = torch.tensor([0.99, 0.99, 0.41])  # gaps: |0.99 - 0.5| for two images, |1 - 0.41| for one
    right = torch.tensor([True, False, True])
    assert calibration_error(confidences, right) == pytest.approx((2 * 0.49 + 0.59) / 3, abs=1e-6)


def test_gaps_of_different_bins_do_not_cancel() -> None:
    assert calibration_error(torch.tensor([0.9, 0.1]), torch.tensor([False, True])) == pytest.approx(0.9)


def test_full_confidence_is_in_the_last_bin() -> None:
    assert calibration_error(torch.tensor([1.0, 0.97]), torch.tensor([True, True])) == pytest.approx(0.015)


@given(
    own=st.lists(st.integers(-3, 3), min_size=1, max_size=20),
    others=st.lists(st.integers(-3, 3), min_size=1, max_size=20),
)
def test_auroc_is_the_area_under_the_roc_curve(own: list[int], others: list[int]) -> None:
    labels = [0] * len(own) + [1] * len(others)
    expected = roc_auc_score(labels, [*own, *others])
    assert auroc(torch.tensor(own).float(), torch.tensor(others).float()) == pytest.approx(expected)


class Echo(Learner):
    """A learner whose outputs are the input images."""

    num_masks, num_labels = 1, 2

    def logits(self, x: Tensor, mask: int) -> Tensor:
        return x


def test_a_mask_that_is_confident_only_on_its_own_images_has_a_perfect_auroc() -> None:
    own = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
    others = torch.zeros(5, 3)
    found = confidence(Echo(), 0, (own, torch.tensor([0, 0])), others, ["entropy", "max_logit", "energy"])
    assert found.accuracy == 0.5
    assert found.confidence == pytest.approx(1, abs=1e-3)
    assert found.calibration_error == pytest.approx(0.5, abs=1e-3)
    assert found.entropy < 0.01
    assert found.entropy_of_others == pytest.approx(torch.tensor(3.0).log())
    assert found.told_apart == {"entropy": 1.0, "max_logit": 1.0, "energy": 1.0}
