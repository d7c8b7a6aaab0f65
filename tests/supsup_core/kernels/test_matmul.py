"""Matrix products, compared with torch's, in both precisions, with and without autograd."""

import pytest
import torch

from supsup_core.kernels import onednn
from supsup_core.kernels.matmul import input_gradient, linear, products_in, weight_gradient


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("faster", [True, False])
def test_products_and_their_gradients_equal_those_of_autograd(monkeypatch: pytest.MonkeyPatch, faster: bool) -> None:
    monkeypatch.setattr(onednn, "is_faster", lambda: faster)
    x, weight, delta = drawn(16, 30).requires_grad_(), drawn(12, 30).requires_grad_(), drawn(16, 12)
    wanted = torch.autograd.grad(torch.nn.functional.linear(x, weight), (x, weight), delta)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight), x @ weight.t())
        torch.testing.assert_close(input_gradient(delta, weight), wanted[0])
        torch.testing.assert_close(weight_gradient(delta, x), wanted[1])


def test_autograd_can_differentiate_a_product_that_requires_a_gradient() -> None:
    x, weight = drawn(4, 6), drawn(3, 6).requires_grad_()
    (found,) = torch.autograd.grad(linear(x, weight).sum(), weight)
    torch.testing.assert_close(found, x.sum(0).expand(3, 6))


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_rounds_operands_and_result(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    """A processor without bfloat16 instructions computes in float32 and gives nearly the same result."""
    if native and not onednn.multiplies_bfloat16():
        pytest.skip("this processor has no instructions for bfloat16")
    monkeypatch.setattr(onednn, "multiplies_bfloat16", lambda: native)
    x, weight = drawn(16, 30), drawn(12, 30)
    with products_in("bfloat16", x.device):
        found = linear(x, weight)
    assert found.dtype == torch.bfloat16
    exact = x.bfloat16().double() @ weight.bfloat16().double().t()
    torch.testing.assert_close(found.double(), exact, rtol=1e-2, atol=1e-2)
