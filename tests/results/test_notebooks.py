"""Results as data frames, for notebooks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

import orchestrator
from supsup_core.errors import InputError


def test_results_of_all_sweeps_are_one_tidy_table(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="contains no sweep"):
        orchestrator.load_results(tmp_path / "runs")
    assert supsup("sweep", sweep_file(seeds=[0, 1], grid={"scenario": ["GG", "GNu"]}), "--local").code == 0
    assert supsup("sweep", sweep_file("other.yaml", name="other"), "--local").code == 0
    found = orchestrator.load_results(tmp_path / "runs")
    assert set(found["sweep"].str.split("-").str[0]) == {"small", "other"}
    small = orchestrator.load_results(str(tmp_path / "runs"), "small")
    assert len(small) < len(found)
    assert {"GG", "GNu"} == set(small["scenario"]) == set(small["run"].str.split().str[0])
    accuracy = small[(small["metric"] == "accuracy") & (small["num_learned"] == 3)]
    assert sorted(accuracy["seed"]) == [0, 0, 1, 1]
    (report,) = tmp_path.glob("runs/sweeps/small-*/report/points.csv")
    points = pd.read_csv(report)
    assert sorted(points["value"]) == pytest.approx(sorted(small["value"]))
    assert set(small["method"]) == {"supsup"}
    assert isinstance(orchestrator.plot_accuracy(small, "two scenarios"), Figure)
    both = orchestrator.plot_accuracy(found).axes[0].get_legend()
    assert both is not None
    assert len(both.get_texts()) == 3  # runs of the same name in two sweeps are separate lines
    with pytest.raises(InputError, match="contain no accuracy yet"):
        orchestrator.plot_accuracy(found[found["metric"] == "forgetting"])
    (damaged,) = tmp_path.glob("runs/sweeps/other-*/sweep.json")
    damaged.write_text("{")
    with pytest.warns(UserWarning, match=r"left out: .*other-.*sweep.json: is damaged"):
        assert len(orchestrator.load_results(tmp_path / "runs")) == len(small)
    compared = supsup("compare", "GG seed=0", "GNu seed=1")
    assert compared.code == 0
    assert "left out: " in compared.err
    with pytest.raises(AttributeError, match="no attribute 'load_result'"):
        orchestrator.load_result  # noqa: B018
