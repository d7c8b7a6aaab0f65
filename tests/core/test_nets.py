"""The contract of every net, and the constants of the frozen weights."""

import math

import pytest
import torch

from supsup_core.errors import InputError
from supsup_core.inference import OBJECTIVES
from supsup_core.nets import NETS, Net, draw_weights, weights_sha256

SHAPE = (36,)


@pytest.fixture(params=NETS.names())
def net(request: pytest.FixtureRequest) -> Net:
    """Every registered net, with superfluous outputs."""
    return NETS[request.param](num_outputs=15)


def test_weights_are_signed_kaiming_constants_of_the_seed(net: Net) -> None:
    layers = net.layers(SHAPE)
    weights = draw_weights(layers, 1)
    for layer, weight in zip(layers, weights, strict=True):
        assert weight.shape == layer.shape
        torch.testing.assert_close(weight.abs(), torch.full(layer.shape, math.sqrt(2 / layer.fan_in)))
        assert 0.4 < float((weight > 0).double().mean()) < 0.6
    assert weights_sha256(weights) == weights_sha256(draw_weights(layers, 1))
    assert weights_sha256(weights) != weights_sha256(draw_weights(layers, 2))


def test_forward_has_num_outputs(net: Net) -> None:
    weights = draw_weights(net.layers(SHAPE), 0)
    assert net.forward(weights, torch.randn(4, *SHAPE)).shape == (4, 15)


def test_loss_gradients_are_those_of_autograd(net: Net) -> None:
    weights = draw_weights(net.layers(SHAPE), 0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, *SHAPE, generator=generator)
    y = torch.randint(0, 10, (8,), generator=generator)
    loss, ours = net.loss_gradients(weights, x, y)
    wanted_loss, expected = Net.loss_gradients(net, weights, x, y)
    torch.testing.assert_close(loss, wanted_loss)
    for found, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("objective", ["entropy", "superfluous", "max_logit", "energy"])
def test_decision_gradients_are_those_of_autograd_for_each_decision_alone(net: Net, objective: str) -> None:
    weights = [0.3 * w for w in draw_weights(net.layers(SHAPE), 0)]
    x = torch.randn(3, 5, *SHAPE, generator=torch.Generator().manual_seed(1))
    ours = net.decision_gradients(weights, x, OBJECTIVES[objective], 10)
    expected = Net.decision_gradients(net, weights, x, OBJECTIVES[objective], 10)
    for found, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_net_without_outputs_is_refused() -> None:
    with pytest.raises(InputError, match="num_outputs: must be at least 1"):
        NETS["lenet_300_100"](num_outputs=0)


def test_layer_sizes_of_the_papers_nets() -> None:
    sizes = {name: sum(layer.size for layer in NETS[name](num_outputs=100).layers((784,))) for name in NETS.names()}
    assert sizes["lenet_300_100"] == 784 * 300 + 300 * 100 + 100 * 100
    assert sizes["fc_1024_1024"] == 784 * 1024 + 1024 * 1024 + 1024 * 100
