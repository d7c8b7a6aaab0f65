"""A fixture with a small problem for the tests of methods."""

from __future__ import annotations

import pytest

from supsup_core.methods import Problem
from supsup_core.nets import NETS
from supsup_core.training.loop import TrainingRecipe


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem(
        NETS["lenet_300_100"](num_outputs=10), (64,), 10, TrainingRecipe(num_batches=200, learning_rate=1e-3), seed=0
    )
