"""The comparison with published accuracies: the rows that it shows, and their verdicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.results.report.cells import published_cells
from orchestrator.results.report.markdown import to_markdown
from orchestrator.results.report.published import curves, published_table, verdict
from orchestrator.results.text_table import TextTable
from orchestrator.sweeps.sweep import open_sweep

H = "SupSup, H GNu one_shot entropy"
SWEEPS = Path(__file__).parents[3] / "sweeps"


def summary(*rows: tuple[str, int, float, float, float]) -> pd.DataFrame:
    columns = ["run", "num_learned", "mean", "low", "high"]
    found = pd.DataFrame(rows, columns=columns).assign(metric="accuracy", num_seeds=3)
    return pd.concat([found, found.assign(metric="forgetting", mean=0.0)])


@pytest.mark.parametrize(
    ("difference", "said"),
    [(0.0, "reproduced"), (0.3, "reproduced"), (-0.3, "reproduced"), (0.31, "better"), (-0.31, "short")],
)
def test_the_verdict_follows_from_the_difference_and_the_tolerance(difference: float, said: str) -> None:
    assert verdict(difference, 0.3) == said


def test_the_curves_of_a_published_figure_are_compared_with_the_runs() -> None:
    groups = open_sweep(SWEEPS / "fig07_permuted_lenet.yaml", []).plan()
    measured = summary(
        ("SupSup, H GNu one_shot entropy", 10, 0.9369, 0.9360, 0.9378),
        ("SupSup, H GNu one_shot entropy", 25, 0.9369, 0.9360, 0.9378),  # no accuracy is published for 25 tasks
        ("SupSup GG", 10, 0.95, 0.94, 0.96),  # no accuracy is published for GG
        ("BatchE GG", 50, 0.80, 0.79, 0.81),
        ("PSP GG", 10, 0.97, 0.96, 0.98),
    )
    found = published_table(groups, measured)
    assert found[["run", "tasks", "published %", "ours %", "difference", "verdict"]].to_dict("split")["data"] == [
        ["SupSup, H GNu one_shot entropy", 10, 93.67, 93.69, 0.02, "reproduced"],
        ["BatchE GG", 50, 88.33, 80.0, -8.33, "short"],
        ["PSP GG", 10, 94.8, 97.0, 2.2, "better"],
    ]
    assert found["low"].tolist() == pytest.approx([-0.07, -9.33, 1.2])
    text = to_markdown("fig07", TextTable(["run"], []), {"Beside": published_cells(found)}, 0, [], [])
    assert "| PSP GG | 10 | 3 | 94.80 | 97.00 | +2.20 (+1.20 to +3.20) | ±0.8 | better | figure 7, left |" in text


def test_a_run_under_other_conditions_is_not_comparable_and_the_conditions_are_named() -> None:
    changes = ["benchmark.base=digits", "training.num_batches=60"]
    groups = open_sweep(SWEEPS / "fig07_permuted_lenet.yaml", changes).plan()
    found = published_table(groups, summary(("PSP GG", 10, 0.99, 0.98, 1.0)))
    said = "not comparable: benchmark.base.name is digits, not mnist; training.num_batches is 60, not 1000"
    assert found["verdict"].tolist() == [said]


@pytest.mark.parametrize(
    ("file", "changes", "label"),
    [
        ("fig07_permuted_lenet", ["training.learning_rate=1"], "Upper Bound GG"),
        ("fig07_permuted_lenet", ['only=["SupSup, H"]', "method.mask=top_k", "method.density=0.01"], H),
        ("fig09_permuted_2500", ["stream.order=recurring", "stream.visits=5"], "NNs NNs one_shot entropy outlier"),
        ("fig09_permuted_2500", ["inference.decision_group=1"], "GNu GNu one_shot entropy"),
        ("fig11_hopfield_accuracy", ["training.num_batches=1"], "recovered mask GNu hopfield entropy"),
    ],
)
def test_settings_that_the_paper_did_not_run_are_not_comparable(file: str, changes: list[str], label: str) -> None:
    groups = open_sweep(SWEEPS / f"{file}.yaml", changes).plan()
    measured = summary(*((label, n, 0.9, 0.8, 1.0) for n in (5, 10)))
    found = published_table(groups, measured)
    assert len(found)
    assert all(said.startswith("not comparable: ") for said in found["verdict"])


@pytest.mark.parametrize(
    "name", ["fig07_permuted_lenet", "fig07_permuted_fc", "fig09_permuted_2500", "fig11_hopfield_accuracy"]
)
def test_every_run_at_the_papers_scale_is_comparable_with_its_published_curve(name: str) -> None:
    """Without this test, nobody would notice a condition that no run of the figure meets."""
    groups = open_sweep(SWEEPS / f"{name}.yaml", []).plan()
    nodes = [run.experiment.node for group in groups for run in group.runs]
    sides = [(curve, node) for curve in curves() for node in nodes if curve.is_of(node)]
    assert sides
    assert all(curve.other_conditions(node) == [] for curve, node in sides)


def test_a_report_contains_the_published_accuracies(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    file = sweep_file(
        benchmark={"name": "permuted", "base": "digits", "num_tasks": 10},
        net={"name": "lenet_300_100", "num_outputs": 100},
        training={"num_batches": 2},
        evaluation={"at": [10]},
    )
    assert supsup("sweep", file, "--local").code == 0
    (report,) = tmp_path.glob("runs/sweeps/*/report/report.md")
    assert "## Comparison with the paper" in report.read_text()
    assert "not comparable: benchmark.base.name is digits" in report.read_text()
