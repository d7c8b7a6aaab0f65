"""`supsup decisions`: input that it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sweeps.sweep import open_sweep

Command = Callable[..., Any]


@pytest.mark.parametrize(
    "key", ["allocation.objective=G", "allocation.images_per_decision=1", "training.num_batches=2"]
)
def test_key_that_the_recorded_slopes_depend_on_is_refused(supsup: Command, key: str) -> None:
    found = supsup("decisions", "--replay", key)
    assert found.code == 2
    assert f"command line: {key.partition('=')[0]}: a replay reuses the recorded slopes" in found.err


def test_sweep_without_nns_has_no_decisions(supsup: Command, sweep_file: Callable[..., Path]) -> None:
    sweep = open_sweep(sweep_file(), [])
    sweep.save(sweep.plan())
    found = supsup("decisions")
    assert found.code == 2
    assert "has no run of scenario NNs" in found.err
