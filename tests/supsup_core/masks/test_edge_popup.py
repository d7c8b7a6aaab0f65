"""Edge-popup: masks from scores, and the straight-through gradient of the scores."""

import pytest
import torch

from supsup_core.errors import InputError
from supsup_core.masks import Threshold, TopK, draw_scores, num_kept
from supsup_core.nets import Layer


@pytest.mark.parametrize(("density", "size", "kept"), [(0.5, 10, 5), (0.001, 10, 1), (1.0, 10, 10), (0.25, 10, 2)])
def test_top_k_keeps_exactly_the_density(density: float, size: int, kept: int) -> None:
    assert num_kept(density, size) == kept
    for rank_abs in (True, False):
        scores = torch.linspace(-1, 1, size)
        assert int(TopK(density, rank_abs).mask(scores, torch.empty(size)).sum()) == kept


def test_ranking_by_size_and_by_value_gives_the_right_masks_and_gradients() -> None:
    scores = torch.tensor([-3.0, 2.0, 1.0, -0.5])
    by_abs, by_raw = TopK(0.5, True), TopK(0.5, False)
    assert by_abs.mask(scores, torch.empty(4)).tolist() == [1, 1, 0, 0]
    assert by_raw.mask(scores, torch.empty(4)).tolist() == [0, 1, 1, 0]
    assert by_abs.to_scores(scores, torch.ones(4)).tolist() == [-1, 1, 1, -1]
    assert by_raw.to_scores(scores, torch.ones(4)).tolist() == [1, 1, 1, 1]


def test_threshold_keeps_a_score_of_zero() -> None:
    assert Threshold().mask(torch.tensor([-0.1, 0.0, 0.1]), torch.empty(3)).tolist() == [0, 1, 1]


@pytest.mark.parametrize("density", [0.0, -0.1, 1.01])
def test_density_outside_its_range_is_refused(density: float) -> None:
    with pytest.raises(InputError, match=r"density: must be in \(0, 1\]"):
        TopK(density, True)


def test_scores_are_kaiming_uniform() -> None:
    a, b = draw_scores((Layer("w", (400, 100), 100), Layer("v", (10, 25), 25)), 0, 0)
    assert 0.099 < a.abs().max() <= 0.1
    assert 0.19 < b.abs().max() <= 0.2
    assert abs(float(a.mean())) < 0.002
