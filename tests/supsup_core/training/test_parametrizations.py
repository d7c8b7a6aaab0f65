"""Parametrizations and optimisers: the gradients are autograd's, the steps torch's."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from supsup_core.errors import InputError
from supsup_core.masks import Threshold, TopK
from supsup_core.training.loop import Step, TrainingRecipe
from supsup_core.training.optimizers import OPTIMIZERS
from supsup_core.training.parametrizations import Anchored, Dense, Fixed, Parametrization, RankOne, Scored


def drawn(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator)


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
def test_weight_and_gradients_are_those_of_the_formula(name: str) -> None:
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


def test_an_anchored_weight_is_pulled_by_the_gradient_of_its_penalty() -> None:
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


def test_a_fixed_weight_trains_nothing() -> None:
    weight = drawn(4, 5)
    assert Fixed(weight).tensors == []
    assert Fixed(weight).gradients(drawn(4, 5)) == []
    assert torch.equal(Fixed(weight).weight(), weight)


CASES_OF = {
    "rmsprop": (lambda leaves: torch.optim.RMSprop(leaves, lr=0.01), 0.0),
    "adam": (lambda leaves: torch.optim.Adam(leaves, lr=0.01), 0.0),
    "sgd": (lambda leaves: torch.optim.SGD(leaves, lr=0.01), 0.0),
    "sgd with momentum": (lambda leaves: torch.optim.SGD(leaves, lr=0.01, momentum=0.9), 0.9),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES_OF)
def test_an_optimiser_steps_as_torchs_does_and_goes_on_exactly(case: str) -> None:
    parameters = [drawn(4, 5), drawn(7)]
    peers = [tensor.clone().requires_grad_() for tensor in parameters]
    make, momentum = CASES_OF[case]
    kind = OPTIMIZERS[case.split()[0]]
    ours, peer = kind(parameters, momentum), make(peers)
    for number in range(30):
        if number == 15:  # as a resume does
            kept = {key: tensor.clone() for key, tensor in ours.state.items()}
            ours = kind(parameters, momentum)
            for key, tensor in ours.state.items():
                tensor.copy_(kept[key])
        gradients = [drawn(4, 5) * (number + 1), drawn(7) - number]
        for leaf, gradient in zip(peers, gradients, strict=True):
            leaf.grad = gradient.clone()
        peer.step()
        ours.step(gradients, 0.01)
    for one, other in zip(parameters, peers, strict=True):
        torch.testing.assert_close(one, other.detach())


def test_every_optimiser_is_compared() -> None:
    assert {case.split()[0] for case in CASES_OF} == set(OPTIMIZERS.names())


@pytest.mark.parametrize("warmup", [0, 5])
def test_a_recipe_with_decay_and_schedule_trains_as_torch_would(warmup: int) -> None:
    """Against torch.optim with weight_decay and its schedulers, and across a resume."""
    recipe = TrainingRecipe(
        optimizer="adam", learning_rate=0.01, num_batches=20, weight_decay=0.1, schedule="cosine", warmup_batches=warmup
    )
    weight = drawn(4, 5)
    leaf = weight.clone().requires_grad_()
    peer = torch.optim.Adam([leaf], lr=0.01, weight_decay=0.1)
    rates = torch.optim.lr_scheduler.LambdaLR(peer, lambda done: recipe.rate(done) / 0.01)
    slopes = [drawn(4, 5) * (number % 7 - 3.5) for number in range(20)]
    order = iter(slopes)

    def loss_gradients(weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        return torch.zeros(()), [next(order).clone()]

    nothing = torch.zeros(1)
    step = Step([Dense(weight)], recipe, loss_gradients)
    for number, slope in enumerate(slopes):
        if number == 8:
            kept = {name: tensor.clone() for name, tensor in step.state.items()}
            weight = torch.zeros(4, 5)
            step = Step([Dense(weight)], recipe, loss_gradients)
            for name, tensor in step.state.items():
                tensor.copy_(kept[name])
        step(nothing, nothing)
        leaf.grad = slope.clone()
        peer.step()
        rates.step()
    torch.testing.assert_close(weight, leaf.detach())


def test_the_schedule_rises_in_a_line_and_falls_as_a_cosine_to_nothing() -> None:
    recipe = TrainingRecipe(learning_rate=2.0, num_batches=14, schedule="cosine", warmup_batches=4)
    assert [recipe.rate(done) for done in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert recipe.rate(9) == pytest.approx(1.0)
    assert 0 < recipe.rate(13) < 0.06
    assert recipe.rate(14) == pytest.approx(0.0, abs=1e-12)
    assert {TrainingRecipe(learning_rate=2.0).rate(done) for done in (0, 500, 5000)} == {2.0}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"warmup_batches": 1000}, "warmup_batches"),
        ({"warmup_batches": -1}, "warmup_batches"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"momentum": 1.0, "optimizer": "sgd"}, "momentum"),
        ({"momentum": 0.9}, "rmsprop has none"),
    ],
)
def test_recipes_that_mean_nothing_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TrainingRecipe(**fields)
