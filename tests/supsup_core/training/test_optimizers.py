"""Optimisers: their steps equal those of torch.optim."""

import pytest
import torch

from supsup_core.training.optimizers import OPTIMIZERS
from tests.supsup_core.training.tensors import drawn

CASES_OF = {
    "rmsprop": (lambda leaves: torch.optim.RMSprop(leaves, lr=0.01), 0.0),
    "adam": (lambda leaves: torch.optim.Adam(leaves, lr=0.01), 0.0),
    "sgd": (lambda leaves: torch.optim.SGD(leaves, lr=0.01), 0.0),
    "sgd with momentum": (lambda leaves: torch.optim.SGD(leaves, lr=0.01, momentum=0.9), 0.9),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES_OF)
def test_an_optimiser_equals_torchs_across_a_resume(case: str) -> None:
    parameters = [drawn(4, 5), drawn(7)]
    peers = [tensor.clone().requires_grad_() for tensor in parameters]
    make, momentum = CASES_OF[case]
    kind = OPTIMIZERS[case.split()[0]]
    ours, peer = kind(parameters, momentum), make(peers)
    for number in range(30):
        if number == 15:  # as after a resume
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


def test_every_registered_optimiser_is_compared_with_torchs() -> None:
    assert {case.split()[0] for case in CASES_OF} == set(OPTIMIZERS.names())
