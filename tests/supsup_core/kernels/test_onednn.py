"""Checks the private behaviour of torch that `kernels.onednn` relies on. A new version of torch may break it."""

import pytest
import torch

from supsup_core.kernels import onednn

SHAPES = [(128, 784, 300), (7, 30, 1), (1, 5, 9)]


def operands(batch: int, fan_in: int, fan_out: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, fan_in, generator=generator), torch.randn(fan_out, fan_in, generator=generator)


def test_torch_still_has_the_private_operators() -> None:
    assert hasattr(torch.ops.mkldnn, "_linear_pointwise")
    assert hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_is_a_product_with_the_transposed_weight(shape: tuple[int, int, int]) -> None:
    x, weight = operands(*shape)
    exact = x.double() @ weight.double().t()
    torch.testing.assert_close(onednn.linear(x, weight).double(), exact, rtol=1e-5, atol=1e-4)


def test_operands_may_be_transposed_and_the_product_is_contiguous() -> None:
    x, weight = operands(64, 48, 20)
    found = onednn.linear(x.t().contiguous().t(), weight.t().contiguous().t())
    assert found.is_contiguous()
    torch.testing.assert_close(found, x @ weight.t(), rtol=1e-5, atol=1e-4)


def test_the_private_operator_gives_the_same_bits_as_the_public_one() -> None:
    x, weight = operands(128, 784, 300)
    public = torch.nn.functional.linear(x.to_mkldnn(), weight.to_mkldnn()).to_dense()
    assert torch.equal(onednn.linear(x, weight), public)


def test_the_same_product_twice_has_the_same_bits() -> None:
    x, weight = operands(128, 784, 300)
    assert torch.equal(onednn.linear(x, weight), onednn.linear(x.clone(), weight.clone()))


def test_the_check_for_bfloat16_agrees_with_the_kernel() -> None:
    x, weight = (tensor.bfloat16() for tensor in operands(16, 32, 8))
    if onednn.multiplies_bfloat16():
        exact = x.double() @ weight.double().t()
        torch.testing.assert_close(onednn.linear(x, weight).double(), exact, rtol=1e-2, atol=1e-2)
    else:
        with pytest.raises(RuntimeError):
            onednn.linear(x, weight)
