"""Parametrizations: their gradients equal those of autograd."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from supsup_core.masks import Threshold, TopK
from supsup_core.training.parametrizations import Anchored, Dense, Fixed, Parametrization, RankOne, Scored
from tests.supsup_core.training.tensors import drawn

CASES: dict[str, Callable[[], tuple[Parametrization, Callable[..., Tensor]]]] = {
    "dense": lambda: (Dense(drawn(4, 5)), lambda w: w),
    "rank one": lambda: (
        RankOne(drawn(4, 5), drawn(4), drawn(5), False), lambda r, s: drawn(4, 5) * torch.outer(r, s),
    ),
    "rank one, weight too": lambda: (
        RankOne(drawn(4, 5), drawn(4), drawn(5), True), lambda r, s, w: w * torch.outer(r, s),
    ),
    "rank one, convolution": lambda: (
        RankOne(drawn(4, 5, 3, 3), drawn(4), drawn(5), True),
        lambda r, s, w: w * torch.outer(r, s)[:, :, None, None],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_weight_and_gradients_follow_the_formula(name: str) -> None:
    layer, formula = CASES[name]()
    leaves = [tensor.clone().requires_grad_() for tensor in layer.tensors]
    wanted = formula(*leaves)
    torch.testing.assert_close(layer.weight(), wanted.detach())
    slope = drawn(*wanted.shape).flip(0)
    expected = torch.autograd.grad((wanted * slope).sum(), leaves)
    found = layer.gradients(slope.clone())
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_an_anchored_weight_has_the_gradient_of_its_penalty() -> None:
    weight, anchor, importance = drawn(4, 5), drawn(5, 4).t().contiguous(), drawn(4, 5).abs()
    leaf = weight.clone().requires_grad_()
    slope = drawn(4, 5) + 1
    loss = (leaf * slope).sum() + 3.5 / 2 * (importance * (leaf - anchor) ** 2).sum()
    (found,) = Anchored(weight, anchor, importance, 3.5).gradients(slope.clone())
    torch.testing.assert_close(found, torch.autograd.grad(loss, leaf)[0])


def test_scores_get_the_straight_through_gradient() -> None:
    weight, scores, slope = drawn(4, 5), drawn(5, 4).t().contiguous(), drawn(4, 5) + 1
    layer = Scored(weight, scores, TopK(0.3, True))
    kept = scores.abs() >= scores.abs().flatten().sort().values[-6]
    torch.testing.assert_close(layer.weight(), weight * kept)
    torch.testing.assert_close(layer.gradients(slope.clone())[0], slope * weight * scores.sign())
    half = Scored(weight, scores, Threshold(0.5))
    torch.testing.assert_close(half.weight(), weight * (scores >= 0.5))


def test_a_fixed_weight_has_no_trained_tensors() -> None:
    weight = drawn(4, 5)
    assert Fixed(weight).tensors == []
    assert Fixed(weight).gradients(drawn(4, 5)) == []
    assert torch.equal(Fixed(weight).weight(), weight)
