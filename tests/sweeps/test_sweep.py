"""Sweeps: opening them from a file and overrides, and saving them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.base.output_folder import OutputFolder
from orchestrator.sweeps.sweep import find_sweep, open_sweep
from orchestrator.sweeps.sweep_record import ForkOrigin
from supsup_core.errors import InputError

METHODS = {
    "SupSup": {"net.num_outputs": 30},
    "BatchE": {"method": {"name": "batch_e", "weight_learning_rate": 1e-3}, "training.learning_rate": 1e-2},
}


def test_every_variant_is_combined_with_every_grid_value_and_seed(sweep_file: Callable[..., Path]) -> None:
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


def test_the_files_of_a_dataset_are_read_only_when_training_needs_them(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished sweep over a folder of images can be reported without the folder. A changed folder is refused."""
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


def test_the_same_file_with_other_values_is_another_sweep(sweep_file: Callable[..., Path]) -> None:
    file = sweep_file()
    sweep = open_sweep(file, [])
    assert open_sweep(file, ["training.num_batches=30"]).sweep_id == sweep.sweep_id
    assert open_sweep(file, ["training.num_batches=31"]).sweep_id != sweep.sweep_id
    for unscientific in ("output=elsewhere", "resources.num_workers=7", "commit_every=9"):
        assert open_sweep(file, [unscientific]).sweep_id == sweep.sweep_id
    fork = replace(sweep, origin=ForkOrigin("other-123456", 2, "abc"))
    assert fork.sweep_id != sweep.sweep_id


def test_a_saved_sweep_is_found_unchanged(
    sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = replace(open_sweep(sweep_file(seeds=[0, 1]), []), origin=ForkOrigin("other-123456", 2, "abc"))
    sweep = sweep.with_inference(["inference.rule=binary"])
    groups = sweep.plan()
    sweep.save(groups)
    found = find_sweep(OutputFolder(tmp_path / "runs"), "small")
    assert found == replace(sweep, planned={group.group_id: group.size for group in groups})
    assert found.sweep_id == sweep.sweep_id
    assert [run.name for run in found.runs()] == [run.name for run in sweep.runs()]
    assert {run.experiment.inference.rule for run in found.runs()} == {"one_shot", "binary"}
    assert open_sweep(sweep.file, ["seeds=[0, 1]"]).sweep_id != sweep.sweep_id  # a fork has another id


def test_a_sweep_opened_again_from_its_file_keeps_the_inferences_that_evaluate_added(
    sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = open_sweep(sweep_file(), []).with_inference(["inference.rule=binary"])
    sweep.save(sweep.plan())
    again = open_sweep(sweep.file, [])
    assert again.extra_inferences == ({"inference.rule": "binary"},)
    assert again.with_inference(["inference.rule=binary"]) is again


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "name the inference keys to change"),
        (["training.num_batches=4"], "training.num_batches: `supsup evaluate` can change only inference"),
    ],
)
def test_only_an_inference_can_be_added(sweep_file: Callable[..., Path], overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_sweep(sweep_file(), []).with_inference(overrides)


def test_an_output_that_cannot_be_written_is_named(sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    sweep = open_sweep(sweep_file(), [f"output={tmp_path / 'runs'}"])
    with pytest.raises(InputError, match=r"runs cannot be written .*; set output=DIR to another folder"):
        sweep.save(sweep.plan())


def test_the_error_of_an_invalid_combination_names_the_file_and_the_variant(sweep_file: Callable[..., Path]) -> None:
    file = sweep_file(variants={"good": {}, "bad": {"training.num_batches": 0}})
    with pytest.raises(InputError, match=rf"{file}: variants.bad: training.*num_batches"):
        open_sweep(file, []).runs()
