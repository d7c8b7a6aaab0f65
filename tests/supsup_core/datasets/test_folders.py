"""Image folders as a dataset: labels, configuration, and folders that are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from supsup_core.datasets.folders import ImageFolder
from supsup_core.errors import InputError
from supsup_core.tasks import BENCHMARKS
from tests.supsup_core.datasets.beasts import beasts


def test_images_are_in_order_with_the_labels_of_their_folders(root: Path) -> None:
    dataset = beasts(root).load(root)
    assert dataset.train.pixels.shape == (12, 3, 4, 4)
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for number, label in enumerate(dataset.train.labels.tolist()):
        assert dataset.train.pixels[number, :, 2, 2].tolist() == [50 * label, 10 * (number % 4), 200]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("class", "4 classes, but benchmark.base.num_classes is 3"),
        ("empty", "no images"),
        ("part", "this folder does not exist; put the images of each class into test/<class>/"),
    ],
)
def test_folders_that_do_not_fit_the_config_are_refused(root: Path, harm: str, words: str) -> None:
    home = root / "beasts"
    if harm == "class":
        (home / "train" / "dog").mkdir()
    elif harm == "empty":
        for path in (home / "train" / "bee").glob("*.png"):
            path.unlink()
    else:
        (home / "test").rename(home / "tests")
    with pytest.raises(InputError, match=words):
        beasts(root)


def test_training_and_test_folders_with_different_classes_are_refused(root: Path) -> None:
    (root / "beasts" / "test" / "ant").rename(root / "beasts" / "test" / "dog")
    with pytest.raises(InputError, match="class 'ant' is in only one of the folders train and test"):
        beasts(root)


def test_a_dataset_is_read_from_its_configuration_and_written_to_it(root: Path) -> None:
    node = {"name": "image_folder", "folder": "beasts", "num_classes": 3, "side": 4, "mean": [0.5, 0.5, 0.5]}
    benchmark = BENCHMARKS["split"](base=node, num_tasks=3, labels_per_task=1)
    whole = benchmark.with_base(benchmark.source().resolved(root))
    assert whole.source().checksum() == beasts(root).checksum()
    assert (whole.base_name, whole.input_shape) == ("image_folder", (3, 4, 4))
    assert BENCHMARKS["split"](
        **json.loads(json.dumps({"base": whole.base, "num_tasks": 3, "labels_per_task": 1}))
    ) == (replace(whole, base=json.loads(json.dumps(whole.base))))
    for change, words in (
        ({"folders": "x"}, r"base: unknown key 'folders' \(did you mean 'folder'"),
        ({"side": 0}, "base.side: must be at least 1, not 0"),
        ({"mean": [1.0]}, "base.mean: must be three numbers"),
        ({"side": "big"}, "base.side: must be a whole number"),
        ({"mean": 3}, "base: a value has the wrong type"),
    ):
        with pytest.raises(InputError, match=words):
            BENCHMARKS["split"](base={**node, **change})
    with pytest.raises(InputError, match=r"base\.num_classes: is missing"):
        BENCHMARKS["split"](base={"name": "image_folder", "folder": "beasts"})


def test_real_photographs_are_read(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    base = ImageFolder(folder="cifar10-jpeg", num_classes=10).resolved(data_root)
    dataset = base.load(data_root)
    assert dataset.train.pixels.shape == (10_000, 3, 32, 32)
    assert dataset.test.labels.bincount().tolist() == [200] * 10
    means = dataset.train.pixels.float().mean((0, 2, 3)) / 255
    torch.testing.assert_close(means, torch.tensor([0.491, 0.482, 0.447]), atol=0.01, rtol=0)
