"""The frozen weights, and the distributions of initial weights."""

import math
from typing import get_args

import pytest
import torch

from supsup_core.nets import Net, draw_weights, weights_sha256
from supsup_core.nets.base import InitialWeights, Layer
from supsup_core.nets.weights import draw


def test_weights_are_signed_kaiming_constants_determined_by_the_seed(net: Net, shape: tuple[int, ...]) -> None:
    layers = net.layers(shape)
    weights = draw_weights(layers, 1)
    for layer, weight in zip(layers, weights, strict=True):
        assert weight.shape == layer.shape
        if layer.is_gate:
            assert torch.equal(weight, torch.ones(layer.shape))
            continue
        torch.testing.assert_close(weight.abs(), torch.full(layer.shape, math.sqrt(2 / layer.fan_in)))
        assert 0.4 < float((weight > 0).double().mean()) < 0.6
    assert weights_sha256(weights) == weights_sha256(draw_weights(layers, 1))
    assert weights_sha256(weights) != weights_sha256(draw_weights(layers, 2))


LAYERS = [Layer("conv", (64, 32, 3, 3), 288), Layer("fc", (300, 784), 784)]


@pytest.mark.parametrize(
    ("how", "variance"),
    [
        ("signed_kaiming", lambda layer: 2 / layer.fan_in),
        ("signed", lambda layer: 1 / layer.fan_in),
        ("uniform", lambda layer: 1 / (3 * layer.fan_in)),
        ("kaiming_normal", lambda layer: 2 / layer.fan_in),
        ("xavier_normal", lambda layer: 2 / (layer.fan_in + layer.fan_out)),
    ],
)
def test_each_distribution_has_the_variance_of_its_definition(how: InitialWeights, variance: object) -> None:
    assert callable(variance)
    for layer, weight in zip(LAYERS, draw(how, LAYERS, 0, "dense", 0), strict=True):
        assert weight.dtype == torch.float32
        assert weight.shape == layer.shape
        assert abs(float(weight.double().mean())) < 3 * math.sqrt(variance(layer) / layer.size)
        assert float(weight.double().var()) == pytest.approx(variance(layer), rel=0.05)


def test_fan_out_counts_the_positions_of_a_kernel() -> None:
    assert [layer.fan_out for layer in LAYERS] == [64 * 9, 300]


@pytest.mark.parametrize("how", get_args(InitialWeights))
def test_each_purpose_and_index_has_its_own_draw(how: InitialWeights) -> None:
    first = draw(how, LAYERS, 0, "dense", 0)[0]
    assert torch.equal(first, draw(how, LAYERS, 0, "dense", 0)[0])
    for seed, purpose, index in ((1, "dense", 0), (0, "head", 0), (0, "dense", 1)):
        assert not torch.equal(first, draw(how, LAYERS, seed, purpose, index)[0])


@pytest.mark.parametrize("how", ["kaiming_normal", "xavier_normal"])
def test_normal_weights_have_the_spread_of_torchs_function_of_the_same_name(how: InitialWeights) -> None:
    theirs = torch.empty(300, 784)
    if how == "kaiming_normal":
        torch.nn.init.kaiming_normal_(theirs, nonlinearity="relu", generator=torch.Generator().manual_seed(0))
    else:
        torch.nn.init.xavier_normal_(theirs, generator=torch.Generator().manual_seed(0))
    (ours,) = draw(how, LAYERS[1:], 0, "dense", 0)
    assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.01)
