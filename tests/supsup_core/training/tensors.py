"""Makes random tensors for tests."""

import torch
from torch import Tensor


def drawn(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator)
