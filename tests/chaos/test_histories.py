"""Whatever happens to an output, in whatever order, ends with the results of an undisturbed run."""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.chaos.histories import History
from tests.chaos.processes import Processes
from tests.chaos.twin import Twin

SEED = int(os.environ.get("SUPSUP_TEST_SEED", "87322"))
"""The seed of the first history. Set SUPSUP_TEST_SEED to try others; a failure prints the seed of its history."""

STEPS = 20


def live(context: ForkServerContext, twin: Twin, folder: Path, seed: int, with_ray: bool = False) -> History:
    """Lives through a history to its end."""
    folder.mkdir(exist_ok=True)
    history = History(Processes(context, folder, {"HOME": str(folder)}), twin, folder, seed, with_ray)
    for _ in range(STEPS):
        history.step()
    history.finish()
    print(f"seed {seed}: {dict(history.done)}")
    return history


def test_sixty_steps(
    fork_context: ForkServerContext, twin: Twin, tmp_path: Path, give_database: Callable[[Path], None]
) -> None:
    for seed in range(SEED, SEED + 3):
        give_database(tmp_path / str(seed) / "runs")
        live(fork_context, twin, tmp_path / str(seed), seed)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_thousand_steps(fork_context: ForkServerContext, twin: Twin, tmp_path: Path) -> None:
    for seed in range(SEED, SEED + 50):
        live(fork_context, twin, tmp_path / str(seed), seed, with_ray=True)
