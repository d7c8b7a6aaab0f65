"""Online EWC: its penalty and its Fisher information."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from supsup_core.datasets import Dataset
from supsup_core.methods import METHODS, Problem
from supsup_core.methods.baselines.ewc import fisher
from supsup_core.methods.fitting import fresh_weights
from supsup_core.tasks import BENCHMARKS
from tests.supsup_core.methods.learning import learned


def test_ewc_with_strength_zero_equals_the_lower_bound(problem: Problem, digits: Dataset) -> None:
    free, lower = (
        learned(method, problem, digits, 2)[1] for method in (METHODS["ewc"](strength=0.0), METHODS["lower_bound"]())
    )
    for name, tensor in lower.items():
        assert torch.equal(free[name], tensor)


def test_fisher_is_the_mean_square_of_single_gradients(problem: Problem, digits: Dataset) -> None:
    """The reference is the exact expectation over labels, by autograd on every eighth image."""
    task = BENCHMARKS["permuted"](base="digits").task(0, digits, 0)
    weights = fresh_weights(problem)
    found = fisher(problem, weights, [], task, 0, task.num_train)
    wanted = [torch.zeros_like(w) for w in weights]
    for index in range(0, task.num_train, 8):
        x, _ = task.train_batch(torch.tensor([index]))
        leaves = [w.clone().requires_grad_() for w in weights]
        log_p = F.log_softmax(problem.net.forward(leaves, x), 1)[0]
        for label in range(10):
            gradients = torch.autograd.grad(log_p[label], leaves, retain_graph=True)
            for total, gradient in zip(wanted, gradients, strict=True):
                total.addcmul_(gradient, gradient, value=float(log_p[label].detach().exp()))
    for one, total in zip(found, wanted, strict=True):
        expected = total / len(range(0, task.num_train, 8))
        assert torch.corrcoef(torch.stack([one.flatten(), expected.flatten()]))[0, 1] > 0.9
        assert float(one.sum() / expected.sum()) == pytest.approx(1, abs=0.15)
