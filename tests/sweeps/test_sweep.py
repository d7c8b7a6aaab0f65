"""A sweep as its file and the command line describe it, and as it is saved."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.sweeps.sweep import open_sweep

METHODS = {
    "SupSup": {"net.num_outputs": 30},
    "BatchE": {"method": {"name": "batch_e", "weight_learning_rate": 1e-3}, "training.learning_rate": 1e-2},
}


def test_variants_are_run_by_name_with_every_combination(sweep_file: Callable[..., Path]) -> None:
    file = sweep_file(scenario="GG", variants=METHODS, grid={"training.num_batches": [3, 4]}, seeds=[0, 1])
    runs = open_sweep(file, []).runs()
    assert [run.name for run in runs] == [
        f"{name} GG num_batches={count} seed={seed}"
        for name in ("SupSup", "BatchE")
        for count in (3, 4)
        for seed in (0, 1)
    ]
    (batch_e,) = {run.experiment.method for run in runs[4:]}
    assert batch_e.weight_learning_rate == 1e-3  # type: ignore[attr-defined]
    assert {run.experiment.training.learning_rate for run in runs[4:]} == {1e-2}
    assert {run.experiment.training.learning_rate for run in runs[:4]} == {1e-4}
    some = open_sweep(file, ["only=[BatchE]", "training.learning_rate=0.5"]).runs()
    assert {run.label.split()[0] for run in some} == {"BatchE"}
    assert {run.experiment.training.learning_rate for run in some} == {0.5}


def test_what_files_told_is_asked_once(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished sweep over a folder of images is reported without it, and a change of it is told."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part, name in itertools.product(("train", "test"), ("ant", "bee")):
        (tmp_path / "data" / "beasts" / part / name).mkdir(parents=True)
        for number in range(6):
            shade = (200 * (name == "bee"), 10 * number, 0)
            Image.new("RGB", (8, 8), shade).save(tmp_path / "data" / "beasts" / part / name / f"{number}.png")
    base = {"name": "image_folder", "folder": "beasts", "num_classes": 2, "side": 8}
    benchmark = {"name": "split", "base": base, "num_tasks": 1}
    file = sweep_file(scenario="GG", benchmark=benchmark, evaluation={"at": [1]})
    assert supsup("sweep", file, "--local", f"data={tmp_path / 'data'}").code == 0
    (tmp_path / "data").rename(tmp_path / "gone")
    found = supsup("report")
    assert found.code == 0, found.err
    assert supsup("status").code == 0
    (tmp_path / "gone").rename(tmp_path / "data")
    (tmp_path / "data" / "beasts" / "train" / "ant" / "3.png").unlink()
    found = supsup("sweep", file, "--local", f"data={tmp_path / 'data'}")
    assert found.code == 2, found
    assert "give the sweep another name" in found.err
