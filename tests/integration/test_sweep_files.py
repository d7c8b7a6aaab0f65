"""Every sweep file of the project runs at its smallest scale and writes its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.spec.sweep_config import scales_of
from orchestrator.sweeps.sweep import open_sweep

FILES = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))


def _marks(file: Path) -> list[pytest.MarkDecorator]:
    """The marks of a file's test. A search needs Ray, and test_search.py runs one."""
    return [pytest.mark.long] if file.stem.startswith("search_") else []


@pytest.mark.parametrize("file", [pytest.param(file, id=file.stem, marks=_marks(file)) for file in FILES])
def test_a_sweep_file_at_its_smallest_scale_writes_its_report(
    file: Path, supsup: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUPSUP_DATA", raising=False)  # the smallest scales need no downloaded data
    assert scales_of(file) == ["smoke", "cpu"]
    sweep = open_sweep(file, ["scale=smoke"])
    found = supsup("sweep", file, "scale=smoke", *([] if sweep.config.search else ["--local"]))
    assert found.code == 0, found.err
    final = pd.read_csv(sweep.folder.report / "final.csv")
    assert set(final["run"]) == {run.label for group in sweep.plan() for run in group.runs}
    assert final["accuracy %"].between(0, 100).all()
    rules = {run.experiment.inference.rule for group in sweep.plan() for run in group.runs}
    assert (sweep.folder.report / "recovery_over_steps.svg").exists() == ("hopfield" in rules)
