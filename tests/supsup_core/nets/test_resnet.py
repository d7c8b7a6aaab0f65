"""Residual networks, compared with plain torch modules."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supsup_core.errors import InputError
from supsup_core.nets import NETS, draw_weights


class Basic(nn.Module):
    """A basic residual block, made of torch modules."""

    def __init__(self, into: int, width: int, stride: int, affine: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, affine=affine, momentum=None)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, affine=affine, momentum=None)
        self.around = nn.Sequential()
        if stride != 1 or into != width:
            self.around = nn.Sequential(
                nn.Conv2d(into, width, 1, stride, bias=False), nn.BatchNorm2d(width, affine=affine, momentum=None)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.around(x))


class Gem(nn.Module):
    """The ResNet-18 of GEM, made of torch modules."""

    def __init__(self, width: int, num_outputs: int, affine: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width, affine=affine, momentum=None), nn.ReLU()
        )
        blocks, into = [], width
        for stage in range(4):
            for index in range(2):
                out = width * 2**stage
                blocks.append(Basic(into, out, 2 if stage and not index else 1, affine))
                into = out
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(into, num_outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.avg_pool2d(self.blocks(self.stem(x)), 4).flatten(1))


def filled(module: nn.Module, weights: Sequence[Tensor]) -> nn.Module:
    """Copies the weights into the module's parameters, which have the same order, and returns the module.

    A weight (2, width) holds two parameters: the scale and the shift of a batch normalisation.
    """
    parts = [part for weight in weights for part in (weight if weight.dim() == 2 and len(weight) == 2 else [weight])]
    with torch.no_grad():
        for parameter, weight in zip(module.parameters(), parts, strict=True):
            parameter.copy_(weight)
    return module


def test_gem_resnet18_equals_torch_modules_in_training_and_with_stored_statistics() -> None:
    net = NETS["gem_resnet18"](num_outputs=7, width=4)
    weights = draw_weights(net.layers((3, 32, 32)), 0)
    peer = filled(Gem(4, 7), weights)
    batches = torch.randn(3, 6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seen: list[list[Tensor]] = []
    for x in batches:
        torch.testing.assert_close(net.forward(weights, x), peer(x), rtol=1e-4, atol=1e-4)
        seen.append(net.observe(weights, x))
    norms = [torch.stack(column).mean(0) for column in zip(*seen, strict=True)]
    peer.eval()
    torch.testing.assert_close(
        net.forward([*weights, *norms], batches[0]), peer(batches[0]).detach(), rtol=1e-4, atol=1e-4
    )
    loss, gradients = net.loss_gradients(weights, batches[0], torch.arange(6))
    peer.train()
    wanted = F.cross_entropy(peer(batches[0]), torch.arange(6))
    torch.testing.assert_close(loss, wanted.detach())
    for found, expected in zip(gradients, torch.autograd.grad(wanted, list(peer.parameters())), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_affine_batch_normalisation_equals_torch_modules(training: bool) -> None:
    net = NETS["gem_resnet18"](num_outputs=7, width=4, affine=True)
    layers = net.layers((3, 32, 32))
    generator = torch.Generator().manual_seed(1)
    weights = [
        weight + 0.3 * torch.randn(weight.shape, generator=generator) if layer.is_norm else weight
        for layer, weight in zip(layers, draw_weights(layers, 0), strict=True)
    ]
    peer = filled(Gem(4, 7, affine=True), weights)
    x = torch.randn(6, 3, 32, 32, generator=generator)
    norms = [] if training else net.observe(weights, x)
    torch.testing.assert_close(net.forward(weights, x), peer(x), rtol=1e-4, atol=1e-4)
    peer.train(training)
    logits = peer(x)
    torch.testing.assert_close(net.forward([*weights, *norms], x), logits.detach(), rtol=1e-3, atol=1e-3)
    loss = F.cross_entropy(logits, torch.arange(6))
    wanted = torch.autograd.grad(loss, list(peer.parameters()))
    if training:
        _, gradients = net.loss_gradients(weights, x, torch.arange(6))
        parts = [part for one in gradients for part in (one if one.dim() == 2 and len(one) == 2 else [one])]
        for found, expected in zip(parts, wanted, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_affine_parameters_start_at_one_and_zero_for_every_distribution() -> None:
    layers = NETS["gem_resnet18"](width=4, affine=True, initial_weights="xavier_normal").layers((3, 32, 32))
    for layer, weight in zip(layers, draw_weights(layers, 0, "xavier_normal"), strict=True):
        assert layer.is_norm == (weight.dim() == 2 and layer.name != "fc")
        if layer.is_norm:
            assert torch.equal(weight, torch.stack([torch.ones(layer.shape[1]), torch.zeros(layer.shape[1])]))


class Bottleneck(nn.Module):
    """A bottleneck residual block, made of torch modules."""

    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()

        def conv(a: int, b: int, kernel: int, step: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False), nn.BatchNorm2d(b, affine=False, momentum=None)
            )

        self.inner = nn.Sequential(
            conv(into, width, 1, 1), nn.ReLU(), conv(width, width, 3, stride), nn.ReLU(), conv(width, 4 * width, 1, 1)
        )
        self.around = nn.Sequential()
        if stride != 1 or into != 4 * width:
            self.around = conv(into, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.inner(x) + self.around(x))


def test_resnet50_equals_torch_modules() -> None:
    net = NETS["resnet50"](num_outputs=3)
    weights = draw_weights(net.layers((3, 64, 64)), 0)
    blocks: list[nn.Module] = []
    into = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        for index in range(count):
            blocks.append(Bottleneck(into, 64 * 2**stage, 2 if stage and not index else 1))
            into = 256 * 2**stage
    peer = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64, affine=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, 3, bias=False),
    )  # fmt: skip
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = filled(peer, weights)(x)
        torch.testing.assert_close(net.forward(weights, x), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
    assert len(net.norm_widths()) == len(weights) - 1


def test_a_residual_network_refuses_flat_images() -> None:
    with pytest.raises(InputError, match="needs images of shape \\(channels, height, width\\)"):
        NETS["gem_resnet18"]().layers((784,))
