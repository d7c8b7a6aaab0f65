"""Shared fixtures: one thread, real data where it is promised, small problems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from supsup_core.benchmarks import BENCHMARKS, Dataset
from supsup_core.methods import Problem
from supsup_core.nets import NETS
from supsup_core.training import TrainingRecipe

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The real data. Where SUPSUP_DATA promises it, its absence is a failure; elsewhere a skip."""
    named = os.environ.get("SUPSUP_DATA")
    if named is None:
        pytest.skip("SUPSUP_DATA is not set; it names the folder that holds mnist/")
    root = Path(named).absolute()
    assert (root / "mnist").is_dir(), f"SUPSUP_DATA={named} has no mnist folder"
    return root


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """scikit-learn's digits."""
    return BENCHMARKS["permuted"](base="digits").source().load(None)


@pytest.fixture
def small_problem() -> Problem:
    """LeNet on digits, trained for a moment."""
    return Problem(NETS["lenet_300_100"](num_outputs=20), (64,), 10, TrainingRecipe(num_batches=40), seed=3)
