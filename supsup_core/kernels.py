"""Matrix products at the machine's best rate, and in the precision that is asked for.

On a CPU, oneDNN's kernel for a linear layer ran at 2.2 times the rate of torch.mm at the shapes of LeNet
300-100 (one thread, AVX-512), with the same accuracy. It has no gradient, so what autograd is to follow
takes the ordinary way.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


def set_algorithms(deterministic: bool = False, tf32: bool = False) -> None:
    """How this process computes on CUDA: by algorithms that give the same bits each time, and with products of
    matrices and convolutions in TensorFloat-32, faster and coarser. torch itself takes TF32 for convolutions, which
    moved a gradient of a GEM ResNet-18 by a tenth of its largest value; call this before work whose figures count.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T: (batch, fan_in) and (fan_out, fan_in) to (batch, fan_out)."""
    followed = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if _ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32 and not followed:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        return product
    return x @ weight.t()


def weight_gradient(delta: Tensor, x: Tensor) -> Tensor:
    """delta.T @ x: the gradient in a linear layer's weight of outputs delta (batch, fan_out)."""
    return linear(delta.t(), x.t())
