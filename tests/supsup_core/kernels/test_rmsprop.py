"""The compiled RMSprop step, compared with torch's operations."""

import torch

from supsup_core.training.optimizers import RMSprop


def test_the_compiled_step_equals_torchs_operations() -> None:
    """The reference is float64, for which the optimiser uses torch's operations, as on a GPU."""
    generator = torch.Generator().manual_seed(0)
    compiled = torch.randn(3, 41, generator=generator)
    composed = compiled.double()
    once, otherwise = RMSprop([compiled], momentum=0), RMSprop([composed], momentum=0)
    for size in (1, 1e-3, 1e-6, 0):
        for _ in range(20):
            gradient = size * torch.randn(3, 41, generator=generator)
            once.step([gradient], 1e-3)
            otherwise.step([gradient.double()], 1e-3)
    torch.testing.assert_close(compiled.double(), composed, rtol=1e-5, atol=1e-6)
    for name, found in once.state.items():
        torch.testing.assert_close(found.double(), otherwise.state[name], rtol=1e-5, atol=0)
