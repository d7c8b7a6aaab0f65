"""The contract of every net, and the constants of the frozen weights."""

import math

import pytest
import torch

from supsup_core.errors import InputError
from supsup_core.inference import OBJECTIVES
from supsup_core.kernels.matmul import products_in
from supsup_core.nets import NETS, Autograd, Net, draw_weights, weights_sha256


@pytest.fixture(params=NETS.names())
def net(request: pytest.FixtureRequest) -> Net:
    """Every registered net, with superfluous outputs."""
    return NETS[request.param](num_outputs=15)


@pytest.fixture
def shape(net: Net) -> tuple[int, ...]:
    """Images that the net takes, small ones."""
    try:
        net.layers((36,))
    except InputError:
        return (3, 32, 32)
    return (36,)


def test_weights_are_signed_kaiming_constants_of_the_seed(net: Net, shape: tuple[int, ...]) -> None:
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


def test_forward_has_num_outputs(net: Net, shape: tuple[int, ...]) -> None:
    weights = draw_weights(net.layers(shape), 0)
    assert net.forward(weights, torch.randn(4, *shape)).shape == (4, 15)


def test_products_in_bfloat16_give_nearly_the_same(net: Net, shape: tuple[int, ...]) -> None:
    weights = draw_weights(net.layers(shape), 0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, *shape, generator=generator)
    y = torch.randint(0, 10, (16,), generator=generator)
    exact, whole = net.loss_gradients(weights, x, y)
    with products_in("bfloat16", x.device):
        loss, rounded = net.loss_gradients(weights, x, y)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.03, atol=0)
    whole_flat, rounded_flat = (torch.cat([g.flatten().float() for g in found]) for found in (whole, rounded))
    assert not torch.equal(whole_flat, rounded_flat)
    if not net.norm_widths():  # normalisation over a small batch makes much of little
        assert torch.cosine_similarity(whole_flat, rounded_flat, 0) > 0.999


def test_loss_gradients_are_those_of_autograd(net: Net, shape: tuple[int, ...]) -> None:
    if isinstance(net.gradients, Autograd):
        return  # the reference itself
    # Normalisation over a small batch is ill-conditioned: there only double precision tells right from wrong.
    precision = torch.float64 if net.norm_widths() else torch.float32
    weights = [weight.to(precision) for weight in draw_weights(net.layers(shape), 0)]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, *shape, generator=generator, dtype=precision)
    y = torch.randint(0, 10, (8,), generator=generator)
    loss, ours = net.loss_gradients(weights, x, y)
    wanted_loss, expected = Autograd().loss(net, weights, x, y)
    torch.testing.assert_close(loss, wanted_loss)
    for found, wanted in zip(ours, expected, strict=True):
        assert found.is_contiguous()
        torch.testing.assert_close(found, wanted)


def test_tasks_at_once_have_the_gradients_that_each_has_alone(net: Net, shape: tuple[int, ...]) -> None:
    """Three tasks, each with a mask and images of its own, in double precision: small batches are ill-conditioned."""
    generator = torch.Generator().manual_seed(0)
    weights = draw_weights(net.layers(shape), 0)
    masked = [w.double() * (torch.rand(3, *w.shape, generator=generator) < 0.5) for w in weights]
    x = torch.randn(3, 6, *shape, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 10, (3, 6), generator=generator)
    losses, gradients = net.loss_gradients_together(masked, x, y)
    assert losses.shape == (3,)
    for task in range(3):
        loss, expected = net.loss_gradients([layer[task] for layer in masked], x[task], y[task])
        torch.testing.assert_close(losses[task], loss)
        for found, wanted in zip(gradients, expected, strict=True):
            torch.testing.assert_close(found[task], wanted, rtol=1e-6, atol=1e-9 * float(wanted.abs().max()))


def test_turned_gradients_are_those_of_turned_weights(net: Net, shape: tuple[int, ...]) -> None:
    layers = net.layers(shape)
    if any(len(layer.shape) != 2 or layer.is_gate for layer in layers):
        return  # what turns inputs says so (PSP)
    generator = torch.Generator().manual_seed(2)
    weights = [w.double() for w in draw_weights(layers, 0)]
    widths = [layer.shape[1] for layer in layers]
    turns = [torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q for n in widths]
    x = torch.randn(6, *shape, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 10, (6,), generator=generator)
    loss, gradients = net.turned_loss_gradients(turns, weights, x, y)
    expected_loss, expected = Autograd().rotated_loss(net, turns, weights, x, y)
    torch.testing.assert_close(loss, expected_loss)
    assert len(gradients) == len(expected)
    for found, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("objective", ["entropy", "superfluous", "max_logit", "energy"])
def test_decision_gradients_are_those_of_autograd_for_each_decision_alone(
    net: Net, shape: tuple[int, ...], objective: str
) -> None:
    if isinstance(net.gradients, Autograd):
        return  # the reference itself
    weights = [0.3 * w for w in draw_weights(net.layers(shape), 0)]
    x = torch.randn(3, 5, *shape, generator=torch.Generator().manual_seed(1))
    ours = net.decision_gradients(weights, x, OBJECTIVES[objective], 10)
    expected = Autograd().decisions(net, weights, x, OBJECTIVES[objective], 10)
    for found, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_net_without_outputs_is_refused() -> None:
    with pytest.raises(InputError, match="num_outputs: must be at least 1"):
        NETS["lenet_300_100"](num_outputs=0)


def test_layer_sizes_of_the_papers_nets() -> None:
    def size(name: str, num_outputs: int, *shape: int) -> int:
        return sum(layer.size for layer in NETS[name](num_outputs=num_outputs).layers(shape))

    assert size("lenet_300_100", 100, 784) == 784 * 300 + 300 * 100 + 100 * 100
    assert size("fc_1024_1024", 100, 784) == 784 * 1024 + 1024 * 1024 + 1024 * 100
    # torchvision's 25,557,032 without 53,120 of batch normalisation and 1,000 biases
    assert size("resnet50", 1000, 3, 224, 224) == 25_557_032 - 53_120 - 1_000
