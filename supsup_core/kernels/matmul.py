"""Matrix products at the machine's best rate, and in the precision that is asked for.

On a CPU with AVX-512, oneDNN's kernel for a linear layer ran at 2.2 times the rate of torch.mm at the shapes of LeNet
300-100 (one thread), with the same accuracy; with AVX2 alone it took 1.4 times as long as torch.mm. It has no gradient,
so what autograd is to follow takes the ordinary way.
"""

from __future__ import annotations

import functools
import os
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["float32", "bfloat16"]


@functools.cache
def _onednn_is_faster() -> bool:
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.cpu.get_cpu_capability() != "AVX2"


@functools.cache
def _multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it (AVX-512 or later). Without them torch.mm takes forty times as long
    as in float32, and oneDNN refuses; rounded operands are then multiplied as float32, which gives the same."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def set_algorithms(deterministic: bool = False, tf32: bool = False) -> None:
    """How this process computes on CUDA: by algorithms that give the same bits each time, and with products of
    matrices and convolutions in TensorFloat-32, faster and coarser. torch itself takes TF32 for convolutions, which
    moved a gradient of a GEM ResNet-18 by a tenth of its largest value; call this before work whose figures count.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    if deterministic != torch.are_deterministic_algorithms_enabled():  # the call itself loads torch's compiler: seconds
        torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32


def products_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Within it, products of matrices and convolutions take operands rounded to this precision; their sums are
    float32. What they give is of that precision too."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T: (batch, fan_in) and (fan_out, fan_in) to (batch, fan_out)."""
    followed = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if x.device.type != "cpu" or x.dtype == torch.float64 or followed:
        return torch.nn.functional.linear(x, weight)
    if torch.is_autocast_enabled("cpu"):
        x, weight = x.bfloat16(), weight.bfloat16()
        if not _multiplies_bfloat16():
            with torch.autocast("cpu", enabled=False):
                return linear(x.float(), weight.float()).bfloat16()
    if not _onednn_is_faster():
        return torch.nn.functional.linear(x, weight)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return product


def input_gradient(delta: Tensor, weight: Tensor) -> Tensor:
    """delta @ weight: the gradient in a linear layer's inputs, (batch, fan_in), of outputs delta (batch, fan_out)."""
    return linear(delta, weight.t())


def weight_gradient(delta: Tensor, x: Tensor) -> Tensor:
    """delta.T @ x: the gradient in a linear layer's weight of outputs delta (batch, fan_out)."""
    rounded = torch.is_autocast_enabled(x.device.type)
    if rounded and (x.device.type != "cpu" or _multiplies_bfloat16()):  # there, oneDNN's kernel is the slower one
        return torch.mm(delta.t(), x)
    return linear(delta.t(), x.t())
