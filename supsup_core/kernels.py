"""Matrix products at the machine's best rate.

On a CPU, oneDNN's kernel for a linear layer ran at 2.2 times the rate of torch.mm at the shapes of LeNet
300-100 (one thread, AVX-512), with the same accuracy. It has no gradient, so what autograd is to follow
takes the ordinary way.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


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
