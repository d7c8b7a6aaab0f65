"""Initial weights of trained nets, and gates during training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from supsup_core.datasets import Dataset
from supsup_core.methods import METHODS, Problem
from supsup_core.methods.baselines.batch_e import fresh_base
from supsup_core.methods.fitting import fresh_head, fresh_weights
from supsup_core.nets import NETS
from supsup_core.training.loop import TrainingRecipe
from tests.supsup_core.methods.learning import learned


def test_trained_mlps_start_from_signed_constants_that_differ_from_the_frozen_weights(problem: Problem) -> None:
    weights = fresh_weights(problem)
    for found, frozen in zip(weights, problem.weights, strict=True):
        torch.testing.assert_close(found.abs(), frozen.abs() / 2**0.5)
        assert 0.4 < (found.sign() == frozen.sign()).float().mean() < 0.6
    (head,) = fresh_head(problem, 3)
    assert torch.equal(head.abs(), weights[-1].abs())
    conv = replace(problem, net=NETS["gem_resnet18"](width=4), input_shape=(3, 32, 32))
    assert len(fresh_weights(conv)[0].abs().unique()) > 50


def test_initial_weights_set_the_frozen_weights_and_all_trained_weights(problem: Problem) -> None:
    chosen = replace(problem, net=replace(problem.net, initial_weights="kaiming_normal"))
    plain = [*fresh_weights(problem), *fresh_head(problem, 1), *fresh_base(problem), *problem.weights]
    for weight, other in zip(
        [*fresh_weights(chosen), *fresh_head(chosen, 1), *fresh_base(chosen), *chosen.weights], plain, strict=True
    ):
        assert len(weight.abs().unique()) > 100  # no signed constant
        assert float(weight.abs().max()) > 1.5 * float(other.abs().max())  # no uniform distribution


@pytest.mark.parametrize("name", ["upper_bound", "lower_bound", "separate_heads", "piggyback", "icarl"])
def test_gates_stay_at_one_if_weights_are_trained(digits: Dataset, name: str) -> None:
    net = NETS["hopfield_mlp"](num_outputs=20, width=32)
    problem = Problem(net, (64,), 10, TrainingRecipe(num_batches=3, learning_rate=1e-2), seed=0)
    states = learned(METHODS[name](), problem, digits, 2)
    found = [tensor for state in states for key, tensor in state.items() if "gate" in key]
    assert found
    assert all(torch.equal(gate, torch.ones_like(gate)) for gate in found)
