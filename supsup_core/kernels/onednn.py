"""The non-public functions of torch that this project uses, gathered in one module.

The two functions below belong to torch's binding of oneDNN, as of torch 2.13 (constraints.txt pins the version). torch
may change or drop these functions without notice. If torch changes a function, tests/supsup_core/kernels/test_onednn.py
fails.

- `torch.ops.mkldnn._linear_pointwise` computes a linear layer with oneDNN's kernel. This kernel was 1.1 to 2.2 times as
  fast as torch.mm, with the same accuracy (measured on one thread with AVX-512, at the shapes of LeNet 300-100). The
  public interface to this kernel is `torch.nn.functional.linear` with tensors that `to_mkldnn` converts. The public
  interface gives the same bits but took 1.1 to 1.5 times as long, since it copies the operands.
- `torch.ops.mkldnn._is_mkldnn_bf16_supported` is the check that this kernel performs on bfloat16 operands. The public
  `torch.cpu.get_capabilities` only lists instruction sets, so this project would have to repeat oneDNN's own rules.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor


@functools.cache
def is_faster() -> bool:
    """Whether `linear` is faster than torch.nn.functional.linear.

    On a processor with AVX2 but without AVX-512, `linear` took 1.4 times as long as torch.mm.
    """
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.cpu.get_cpu_capability() != "AVX2"


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether oneDNN can multiply bfloat16 matrices on this processor, which requires AVX-512 or newer."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Returns x @ weight.T (batch, fan_out), computed by oneDNN on a CPU in float32 or bfloat16.

    x: (batch, fan_in). weight: (fan_out, fan_in). The result has no gradient.
    """
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return product
