"""The gradients of every net, compared with autograd."""

import pytest
import torch

from supsup_core.inference import OBJECTIVES
from supsup_core.nets import Autograd, Net, draw_weights


def test_loss_gradients_equal_those_of_autograd(net: Net, shape: tuple[int, ...]) -> None:
    if isinstance(net.gradients, Autograd):
        return  # the reference itself
    # Normalisation over a small batch is ill-conditioned, so it needs double precision to detect a wrong gradient.
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


def test_stacked_tasks_have_the_gradients_of_single_tasks(net: Net, shape: tuple[int, ...]) -> None:
    """The three tasks have different masks and images. Small batches are ill-conditioned, so the test uses float64."""
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


def test_rotated_gradients_equal_those_of_rotated_weights(net: Net, shape: tuple[int, ...]) -> None:
    layers = net.layers(shape)
    if any(len(layer.shape) != 2 or layer.is_gate for layer in layers):
        return  # PSP refuses these nets with an error
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
def test_decision_gradients_equal_those_of_autograd_for_each_decision_alone(
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
