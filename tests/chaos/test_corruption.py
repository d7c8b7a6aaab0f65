"""No corrupted file leads to a wrong result that nobody is told about, and no command deletes a trained mask."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.corruption import CHEAP, Matrix
from tests.chaos.worlds import World, build
from tests.forked import load_ahead


@pytest.fixture(scope="module", params=[False, True], ids=["output", "output and storage"])
def worlds(request: pytest.FixtureRequest) -> Iterator[tuple[World, World]]:
    """A killed and a finished output, in a folder that other users can enter, unlike pytest's own folders."""
    load_ahead()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield build(Path(folder), request.param)


@pytest.mark.timeout(900)
def test_a_corrupted_file_is_told_or_changes_nothing(worlds: tuple[World, World]) -> None:
    check(worlds, 28, CHEAP, 75)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_many_corrupted_files_are_told_or_change_nothing(worlds: tuple[World, World]) -> None:
    check(worlds, 2028, dict.fromkeys(CHEAP, 1), 500)


def check(worlds: tuple[World, World], seed: int, weights: dict[str, int], count: int) -> None:
    """Runs `count` cells in each world."""
    figures: Counter[str] = Counter()
    wrong = []
    for name, world in zip(("killed", "finished"), worlds, strict=True):
        matrix = Matrix(world, seed, weights)
        matrix.run(count)
        figures.update({verdict: len(found) for verdict, found in matrix.verdicts.items()})
        wrong += [f"{verdict}, {name}, {cell}" for verdict in ("silent", "lost") for cell in matrix.verdicts[verdict]]
    print(dict(figures))
    assert wrong == [], dict(figures)
    assert figures["found"] > 0
