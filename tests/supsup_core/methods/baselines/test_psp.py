"""PSP: its rotations."""

from __future__ import annotations

import torch

from supsup_core.methods import Problem
from supsup_core.methods.baselines.psp import rotations


def test_rotations_are_orthogonal_and_differ_by_task(problem: Problem) -> None:
    first, second = rotations(problem, 0), rotations(problem, 1)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one @ one.t(), torch.eye(len(one)), atol=1e-5, rtol=0)
        assert float((one - other).abs().max()) > 0.1
    assert all(torch.equal(a, b) for a, b in zip(first, rotations(problem, 0), strict=True))
