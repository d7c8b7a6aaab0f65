"""Objectives: values and gradients."""

import pytest
import torch

from supsup_core.inference import OBJECTIVES
from supsup_core.nets.base import Objective


def test_entropy_of_a_uniform_and_of_a_certain_answer() -> None:
    entropy = OBJECTIVES["entropy"]
    assert float(entropy(torch.zeros(3, 8), 4)) == pytest.approx(2.0794, abs=1e-4)
    assert float(entropy(torch.tensor([[100.0, 0, 0, 0]]), 4)) == pytest.approx(0, abs=1e-6)


def test_superfluous_has_no_gradient_in_real_neurons() -> None:
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (slope,) = torch.autograd.grad(OBJECTIVES["G"](logits, 5), logits)
    assert torch.equal(slope[:, :5], torch.zeros(4, 5))
    torch.testing.assert_close(slope[:, 5:], torch.softmax(logits.detach(), 1)[:, 5:] / 4)


@pytest.mark.parametrize("name", ["max_logit", "energy"])
def test_max_logit_and_energy_depend_on_real_neurons_only(name: str) -> None:
    logits = torch.tensor([[1.0, 2.0, 50.0], [0.0, 4.0, 50.0]])
    changed = torch.tensor([[1.0, 2.0, -9.0], [0.0, 4.0, 7.0]])
    objective: Objective = OBJECTIVES[name]
    assert float(objective(logits, 2)) == float(objective(changed, 2))
    assert float(OBJECTIVES["max_logit"](logits, 2)) == -3.0


@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_objectives_of_several_decisions_are_independent(objective: str) -> None:
    logits = torch.randn(5, 3, 12, generator=torch.Generator().manual_seed(0))
    together = OBJECTIVES[objective](logits, 10)
    apart = torch.stack([OBJECTIVES[objective](part, 10) for part in logits])
    torch.testing.assert_close(together, apart)
