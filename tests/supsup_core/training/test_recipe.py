"""Training recipes: weight decay, schedules, and values that are refused."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from supsup_core.errors import InputError
from supsup_core.training.loop import Step, TrainingRecipe
from supsup_core.training.parametrizations import Dense
from tests.supsup_core.training.tensors import drawn


@pytest.mark.parametrize("warmup", [0, 5])
def test_weight_decay_and_schedule_equal_those_of_torch_across_a_resume(warmup: int) -> None:
    """The reference is torch.optim with weight_decay and torch's schedulers."""
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


def test_the_schedule_rises_linearly_and_falls_as_a_cosine_to_zero() -> None:
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
        ({"momentum": 0.9}, "optimizer rmsprop has no momentum"),
    ],
)
def test_invalid_schedules_and_momentum_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TrainingRecipe(**fields)
