"""No corrupted file leads to a wrong result that nobody is told about, and no command deletes a trained mask."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.chaos.corruption import CHEAP, Matrix
from tests.chaos.corruption_samples import Sample, build


@pytest.fixture(scope="module", params=[False, True], ids=["output", "output and storage"])
def samples(request: pytest.FixtureRequest, fork_context: ForkServerContext) -> Iterator[tuple[Sample, Sample]]:
    """A killed and a finished output, in a folder that other users can enter, unlike pytest's own folders."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield build(fork_context, Path(folder), request.param)


@pytest.mark.timeout(900)
def test_a_corrupted_file_is_told_or_changes_nothing(samples: tuple[Sample, Sample]) -> None:
    check(samples, 28, CHEAP, 75)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_many_corrupted_files_are_told_or_change_nothing(samples: tuple[Sample, Sample]) -> None:
    check(samples, 2028, dict.fromkeys(CHEAP, 1), 500)


def check(samples: tuple[Sample, Sample], seed: int, weights: dict[str, int], count: int) -> None:
    """Runs `count` cells in each sample."""
    figures: Counter[str] = Counter()
    wrong = []
    for name, sample in zip(("killed", "finished"), samples, strict=True):
        matrix = Matrix(sample, seed, weights)
        matrix.run(count)
        figures.update({verdict: len(found) for verdict, found in matrix.verdicts.items()})
        wrong += [f"{verdict}, {name}, {cell}" for verdict in ("silent", "lost") for cell in matrix.verdicts[verdict]]
    print(dict(figures))
    assert wrong == [], dict(figures)
    assert figures["found"] > 0
