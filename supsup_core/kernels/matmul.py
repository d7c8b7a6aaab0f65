"""Matrix products by the fastest available kernel, in the requested precision.

oneDNN's kernel (kernels.onednn) has no gradient, so torch computes the products that autograd must differentiate.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor

from supsup_core.kernels import onednn

Precision = Literal["float32", "bfloat16"]


def set_algorithms(deterministic: bool = False, tf32: bool = False) -> None:
    """Set how this process computes on CUDA. Call this function before any computation.

    deterministic: use only algorithms that give the same bits every time. tf32: compute products of matrices and
    convolutions in TensorFloat-32, which is faster and less accurate. Without this call, torch would use TF32 for
    convolutions. In a GEM ResNet-18, TF32 changed a gradient by a tenth of its largest value.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
    if deterministic != torch.are_deterministic_algorithms_enabled():  # the call takes seconds
        torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32


def products_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Returns a context in which matrix products and convolutions round their operands and results to `precision`.

    The sums inside a product are computed in float32.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Returns x @ weight.T (batch, fan_out) for x (batch, fan_in) and weight (fan_out, fan_in).

    In a bfloat16 context (see `products_in`) on a processor without bfloat16 instructions, the rounded operands are
    multiplied as float32, which gives the same result. On such a processor, torch.mm takes forty times as long in
    bfloat16 as in float32, and oneDNN rejects bfloat16.
    """
    needs_gradient = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if x.device.type != "cpu" or x.dtype == torch.float64 or needs_gradient:
        return torch.nn.functional.linear(x, weight)
    if torch.is_autocast_enabled("cpu"):
        x, weight = x.bfloat16(), weight.bfloat16()
        if not onednn.multiplies_bfloat16():
            with torch.autocast("cpu", enabled=False):
                return linear(x.float(), weight.float()).bfloat16()
    return onednn.linear(x, weight) if onednn.is_faster() else torch.nn.functional.linear(x, weight)


def input_gradient(delta: Tensor, weight: Tensor) -> Tensor:
    """Returns delta @ weight (batch, fan_in), the gradient with respect to the inputs of a linear layer.

    delta: the gradient with respect to the layer's outputs, (batch, fan_out). weight: (fan_out, fan_in).
    """
    return linear(delta, weight.t())


def weight_gradient(delta: Tensor, x: Tensor) -> Tensor:
    """Returns delta.T @ x (fan_out, fan_in), the gradient with respect to the weight of a linear layer.

    delta: the gradient with respect to the layer's outputs, (batch, fan_out). x: the layer's inputs, (batch, fan_in).
    """
    rounded = torch.is_autocast_enabled(x.device.type)
    if rounded and (x.device.type != "cpu" or onednn.multiplies_bfloat16()):  # here torch.mm is faster than oneDNN
        return torch.mm(delta.t(), x)
    return linear(delta.t(), x.t())
