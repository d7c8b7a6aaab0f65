"""numba compiles the kernels for the requested processor."""

import os
import subprocess
import sys

import pytest

from supsup_core.kernels.mask_products import HAS_PERMUTATION

PRODUCTS = """
import numpy as np, torch
from supsup_core.kernels.mask_products import HAS_PERMUTATION, REGISTER_LANES
from supsup_core.masks.products import inner_products, multiply_unpacked
rows = np.random.default_rng(0).integers(0, 256, (40, 1003), dtype=np.uint8)
vector = torch.randn(1, 8 * 1003, generator=torch.Generator().manual_seed(0))
found, wanted = (product(rows, 8 * 1003, vector) for product in (inner_products, multiply_unpacked))
assert (found - wanted).abs().max() <= 3e-6 * vector.norm()
print(REGISTER_LANES if HAS_PERMUTATION else "planes")
"""


@pytest.mark.parametrize(
    ("target", "kernel"),
    [({"NUMBA_CPU_NAME": "generic"}, "planes")] + [({"NUMBA_CPU_FEATURES": "+avx,+avx2"}, "8")] * HAS_PERMUTATION,
)
def test_products_are_compiled_for_the_processor_that_numba_is_given(target: dict[str, str], kernel: str) -> None:
    """So a cluster with different processors can use only the instructions that all of them support."""
    command = [sys.executable, "-c", PRODUCTS]
    found = subprocess.run(command, env={**os.environ, **target}, capture_output=True, text=True, check=False)
    assert (found.stdout.strip(), found.stderr) == (kernel, "")
