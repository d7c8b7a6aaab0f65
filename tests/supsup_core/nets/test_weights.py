"""The frozen weights: signed Kaiming constants."""

import math

import torch

from supsup_core.nets import Net, draw_weights, weights_sha256


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
