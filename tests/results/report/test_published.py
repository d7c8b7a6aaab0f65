"""The comparison with published accuracies: which runs are compared, and the verdicts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from orchestrator.base.plain_values import Node
from orchestrator.results.report.cells import published_cells
from orchestrator.results.report.markdown import to_markdown
from orchestrator.results.report.published import (
    Curve,
    curves,
    flat_settings,
    published_table,
    read_curves,
    verdict,
)
from orchestrator.results.text_table import TextTable
from orchestrator.sweeps.sweep import open_sweep
from supsup_core.datasets.imagenet import ImageNet
from supsup_core.errors import InputError

H = "SupSup, H GNu one_shot entropy"
SWEEPS = Path(__file__).parents[3] / "sweeps"
FIGURES = ("fig04_split_imagenet", "fig04_split_cifar100", "fig07_permuted_lenet", "fig07_permuted_fc",
           "fig09_permuted_2500", "fig09_bounds", "fig11_hopfield_accuracy")  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def without_imagenet() -> Iterator[None]:
    """Plans need the list of ImageNet's files, which are not at hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageNet, "resolved", lambda self, root: replace(self, checksum_of_files="0" * 64))
        yield


@cache
def nodes() -> tuple[Node, ...]:
    """Returns the configs of all runs of the paper's figures at the paper's scale."""
    return tuple(
        run.experiment.node
        for name in FIGURES
        for group in open_sweep(SWEEPS / f"{name}.yaml", ["output=nowhere"]).plan()
        for run in group.runs
    )


def named(curve: Curve) -> str:
    return f"{curve.source}-{curve.name}"


EACH_CURVE = pytest.mark.parametrize("curve", curves(), ids=named)


def summary(*rows: tuple[str, int, float, float, float]) -> pd.DataFrame:
    columns = ["run", "num_learned", "mean", "low", "high"]
    found = pd.DataFrame(rows, columns=columns).assign(metric="accuracy", num_seeds=3)
    return pd.concat([found, found.assign(metric="forgetting", mean=0.0)])


def test_curves_are_told_apart_by_their_source_and_name() -> None:
    assert len({(curve.source, curve.name) for curve in curves()}) == len(curves())


@EACH_CURVE
def test_a_run_of_the_project_has_the_settings_of_each_published_curve(curve: Curve) -> None:
    """Without this test, nobody would notice a curve with which no run is compared."""
    assert any(curve.is_of(node) and curve.differences(node) == [] for node in nodes())


@EACH_CURVE
def test_each_setting_of_a_run_is_fixed_by_its_curve_or_free_with_a_reason(curve: Curve) -> None:
    compared = 0
    for node in nodes():
        settings = flat_settings(node)
        same_classes = all(settings.get(key) == curve.fixed[key] for key in curve.fixed if key.endswith(".name"))
        if curve.is_of(node) and same_classes:  # another class, such as another allocation test, has other settings
            assert set(settings) <= {*curve.what, *curve.fixed, *curve.free}
            compared += 1
    assert compared


@EACH_CURVE
def test_a_run_with_any_other_fixed_setting_is_not_comparable(curve: Curve) -> None:
    node = next(node for node in nodes() if curve.is_of(node) and curve.differences(node) == [])
    for key in curve.fixed:
        found = curve.differences(with_other_value(node, key))
        assert [phrase.split(" is ")[0] for phrase in found] == [key]
    for key in curve.what:
        assert not curve.is_of(with_other_value(node, key))
    for key in curve.free.keys() & flat_settings(node).keys():
        assert curve.differences(with_other_value(node, key)) == []


def with_other_value(node: Node, key: str) -> Node:
    """Returns a copy of a config in which one setting has another value."""
    changed: Node = copy.deepcopy(node)
    if not isinstance(changed["benchmark"]["base"], dict):
        changed["benchmark"]["base"] = {"name": changed["benchmark"]["base"]}
    section = changed
    *path, last = key.split(".")
    for part in path:
        section = section[part]
    section[last] = "another value"
    return changed


def test_a_setting_that_a_later_version_or_a_users_class_adds_is_not_comparable() -> None:
    curve, node = next((curve, node) for curve in curves() for node in nodes() if curve.is_of(node))
    node = copy.deepcopy(node)
    node["training"]["label_smoothing"] = 0.1
    assert curve.differences(node) == ["training.label_smoothing is not among the settings of the published curve"]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.3, 0.3, "reproduced"),
        (-0.1, 0.2, "reproduced"),
        (0.31, 0.5, "better"),
        (-0.5, -0.31, "short"),
        (-0.1, 0.31, "not decided (3 seeds)"),
        (-0.31, 0.1, "not decided (3 seeds)"),
        (-9.0, 9.0, "not decided (3 seeds)"),
        (float("nan"), float("nan"), "not decided (3 seeds)"),
    ],
)
def test_the_verdict_follows_from_the_interval_and_the_tolerance(low: float, high: float, said: str) -> None:
    assert verdict(low, high, 0.3, 3) == said


def test_one_seed_decides_nothing() -> None:
    assert verdict(float("nan"), float("nan"), 0.3, 1) == "not decided (1 seed)"


CURVE: dict[str, Any] = {
    "source": "figure 7", "name": "PSP", "confidence": "quoted", "what": {"scenario": "GG"},
    "fixed": {"net.num_outputs": 10}, "free": {"net.weight_seed": "a reason"}, "accuracy": {10: 90.0}, "tolerance": 0.3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *(({key: None}, f"curve 1 .*: {key} is missing") for key in CURVE if key != "source"),
        ({"fixed": {}}, "fixed is empty; name the settings"),
        ({"tolerances": 1}, "tolerances is an unknown key; remove it"),
        ({"confidence": "certain"}, "confidence must be one of quoted, digitised, second_hand"),
        ({"free": {"net.weight_seed": ""}}, "free.net.weight_seed has no reason; say why"),
        ({"free": {"scenario": "a reason"}}, "scenario is in two of what, fixed and free; remove one"),
    ],
)
def test_an_incomplete_entry_of_published_yaml_is_refused_in_one_line(change: dict[str, Any], said: str) -> None:
    entry = {key: value for key, value in {**CURVE, **change}.items() if value is not None}
    with pytest.raises(InputError, match=said) as error:
        read_curves(yaml.safe_dump({"curves": [entry]}))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("published.yaml: curve 1 (figure 7): ")


def test_the_curves_of_a_published_figure_are_compared_with_the_runs() -> None:
    groups = open_sweep(SWEEPS / "fig07_permuted_lenet.yaml", ["seeds=[0, 1, 2]"]).plan()
    measured = summary(
        (H, 10, 0.9369, 0.9360, 0.9378),
        (H, 25, 0.9369, 0.9360, 0.9378),  # no accuracy is published for 25 tasks
        ("SupSup GG", 10, 0.95, 0.94, 0.96),  # no accuracy is published for GG
        ("BatchE GG", 50, 0.80, 0.79, 0.81),
        ("PSP GG", 10, 0.97, 0.96, 0.98),
    )
    found = published_table(groups, measured)
    assert found[["run", "tasks", "published %", "ours %", "difference", "verdict"]].to_dict("split")["data"] == [
        [H, 10, 93.67, 93.69, 0.02, "reproduced"],
        ["BatchE GG", 50, 88.33, 80.0, -8.33, "short"],
        ["PSP GG", 10, 94.8, 97.0, 2.2, "better"],
    ]
    assert found["low"].tolist() == pytest.approx([-0.07, -9.33, 1.2])
    text = to_markdown("fig07", TextTable(["run"], []), {"Beside": published_cells(found)}, 0, [], [])
    assert (
        "| PSP GG | 10 | 3 | 94.80 | 97.00 | +2.20 (+1.20 to +3.20) | ±0.8 | better | figure 7, left (digitised) |"
        in text
    )


def test_a_run_without_the_results_of_all_its_seeds_is_unfinished() -> None:
    groups = open_sweep(SWEEPS / "fig07_permuted_lenet.yaml", ["seeds=[0, 1, 2, 3]"]).plan()
    found = published_table(groups, summary((H, 10, 0.9369, 0.9360, 0.9378)))
    assert found["verdict"].tolist() == ["unfinished (3 of 4 seeds)"]


def test_a_run_under_other_conditions_is_not_comparable_and_the_conditions_are_named() -> None:
    changes = ["benchmark.base=digits", "training.num_batches=60"]
    groups = open_sweep(SWEEPS / "fig07_permuted_lenet.yaml", changes).plan()
    found = published_table(groups, summary(("PSP GG", 10, 0.99, 0.98, 1.0)))
    said = "not comparable: benchmark.base.name is digits, not mnist; training.num_batches is 60, not 1000"
    assert sorted(found["verdict"].item().removeprefix("not comparable: ").split("; ")) == sorted(
        said.removeprefix("not comparable: ").split("; ")
    )


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
    assert "benchmark.base.name is digits, not mnist" in report.read_text()
