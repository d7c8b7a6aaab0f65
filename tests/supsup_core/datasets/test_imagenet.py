"""The ImageNet reader, on archives and folders of the same form with fewer and smaller images."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from supsup_core.datasets import Dataset, Images
from supsup_core.datasets.imagenet import ImageNet
from supsup_core.errors import CorruptError, InputError
from supsup_core.tasks import BENCHMARKS

WNIDS = ["n01440764", "n01443537", "n01484850"]
TRUTH = [2, 0, 1, 1, 2, 0]
"""The class of each validation image."""


class Small(ImageNet):
    """ImageNet with three classes, each with 2 to 3 training images and 2 validation images."""

    num_labels = 3
    train_counts = (2, 3)
    num_train = 7
    val_count = 2


def jpeg(label: int, number: int) -> bytes:
    """Returns a JPEG of a single grey level, which depends on the label and the number."""
    out = io.BytesIO()
    Image.new("RGB", (20, 16), (40 * label + 5 * number,) * 3).save(out, "JPEG", quality=95)
    return out.getvalue()


TRAIN = {(wnid, f"{wnid}_{n}.JPEG"): jpeg(i, n) for i, wnid in enumerate(WNIDS) for n in range(3 if i == 1 else 2)}
VAL = {f"ILSVRC2012_val_{n + 1:08}.JPEG": (label, jpeg(label, 3)) for n, label in enumerate(TRUTH)}


def packed(contents: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def devkit() -> bytes:
    """Returns the devkit archive with ground truth and table of classes. Class ids are not in the order of WordNet ids,
    and some ids are not classes."""
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(3, WNIDS[0], "a", 0), (1, WNIDS[1], "b", 0), (2, WNIDS[2], "c", 0), (1001, "n00000001", "above", 3)]
    table = io.BytesIO()
    scipy.io.savemat(table, {"synsets": np.array(rows, dtype=fields)[:, None]})
    ids = {0: 3, 1: 1, 2: 2}
    truth = "".join(f"{ids[label]}\n" for label in TRUTH)
    folder = "ILSVRC2012_devkit_t12/data"
    contents = {
        f"{folder}/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
        f"{folder}/meta.mat": table.getvalue(),
    }
    return packed(contents, "w:gz")


DEVKIT = devkit()
Small.devkit_md5 = hashlib.md5(DEVKIT).hexdigest()


def put_archives(home: Path, train: dict[tuple[str, str], bytes] = TRAIN) -> None:
    home.mkdir(parents=True)
    wnids = sorted({wnid for wnid, _ in train}, reverse=True)
    inner = {f"{w}.tar": packed({name: content for (wnid, name), content in train.items() if wnid == w}) for w in wnids}
    (home / "ILSVRC2012_img_train.tar").write_bytes(packed(inner))
    (home / "ILSVRC2012_img_val.tar").write_bytes(packed({name: content for name, (_, content) in VAL.items()}))
    (home / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(DEVKIT)


def put_folders(home: Path, train: dict[tuple[str, str], bytes] = TRAIN) -> None:
    val = {(WNIDS[label], name): content for name, (label, content) in VAL.items()}
    for part, images in (("train", train), ("val", val)):
        for (wnid, name), content in images.items():
            path = home / part / wnid / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


PUT = [put_archives, put_folders]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "imagenet"


def load(home: Path) -> tuple[Small, Dataset]:
    base = Small(side=16).resolved(home.parent)
    return base, base.load(home.parent)


@pytest.mark.parametrize("put", PUT)
def test_every_image_has_the_class_of_its_wordnet_id(home: Path, put: Callable[..., None]) -> None:
    put(home)
    _, dataset = load(home)
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    grey = dataset.train.pixels.float().mean((1, 2, 3))
    torch.testing.assert_close(grey, torch.tensor([0.0, 5, 40, 45, 50, 80, 85]), atol=2, rtol=0)
    grey = dataset.test.pixels.float().mean((1, 2, 3))
    torch.testing.assert_close(grey, torch.tensor([15.0, 15, 55, 55, 95, 95]), atol=2, rtol=0)


def test_folders_and_archives_are_the_same_dataset(home: Path) -> None:
    put_folders(home)
    put_archives(home.parent / "archives" / "imagenet")
    ours, theirs = Small().resolved(home.parent), Small().resolved(home.parent / "archives")
    assert ours.checksum() == theirs.checksum()


@pytest.mark.parametrize("put", PUT)
def test_an_incomplete_dataset_is_refused(home: Path, put: Callable[..., None]) -> None:
    few = {key: content for key, content in TRAIN.items() if key != (WNIDS[2], f"{WNIDS[2]}_1.JPEG")}
    put(home, few)
    with pytest.raises(InputError, match=r"1 images of class n01484850 in train, but ImageNet has 2 to 3; the copy"):
        Small().resolved(home.parent)


def test_numbers_of_images_or_classes_that_were_not_published_are_refused(home: Path) -> None:
    put_folders(home)
    for fields, words in (
        ({"num_labels": 1000}, "3 classes, but ImageNet has 1000"),
        ({"num_train": 8}, "7 images in train, but ImageNet has 8"),
        ({"val_count": 50}, "2 images of class n01440764 in val, but ImageNet has 50"),
    ):
        other = type("Other", (Small,), fields)
        with pytest.raises(InputError, match=words):
            other().resolved(home.parent)


def test_a_folder_with_a_sample_of_imagenet_is_refused(data_root: Path) -> None:
    with pytest.raises(InputError, match="100 classes, but ImageNet has 1000"):
        ImageNet(folder="imagenet-sample").resolved(data_root)


def test_damaged_archives_are_named(home: Path) -> None:
    with pytest.raises(InputError, match=r"neither train/<wnid>.* nor ILSVRC2012_img_train.tar"):
        Small().resolved(home.parent)
    put_archives(home)
    kit = home / "ILSVRC2012_devkit_t12.tar.gz"
    whole = kit.read_bytes()
    for damaged in (whole[:200], whole[:-60] + bytes([whole[-60] ^ 1]) + whole[-59:]):
        kit.write_bytes(damaged)
        with pytest.raises(CorruptError, match="not the published devkit"):
            Small().resolved(home.parent)
    kit.unlink()
    with pytest.raises(InputError, match=r"devkit_t12.tar.gz: is missing"):
        Small().resolved(home.parent)
    kit.write_bytes(whole)
    train = home / "ILSVRC2012_img_train.tar"
    train.write_bytes(train.read_bytes()[:1500])
    with pytest.raises(CorruptError, match="not a complete tar archive"):
        Small().resolved(home.parent)


def test_split_imagenet_is_one_fixed_split() -> None:
    """For every seed, tasks contain the classes in the order of numpy's RandomState(1).permutation(1000)."""
    split = BENCHMARKS["split"](base="imagenet", num_tasks=100, labels_per_task=10, order="fixed", crop=224)
    assert split.input_shape == (3, 224, 224)
    pixels = torch.zeros(1000, 1, 1, 1, dtype=torch.uint8)
    images = Images(pixels, torch.arange(1000))
    dataset = Dataset(images, images, 0.0, 1.0)
    for seed in (0, 5):
        task = split.task(0, dataset, seed)
        assert task.num_train == 10
        classes = torch.nonzero(task._labels >= 0).flatten()  # type: ignore[attr-defined]
        in_order = classes[task._labels[classes].argsort()]  # type: ignore[attr-defined]
        assert in_order.tolist() == [507, 818, 452, 368, 242, 929, 262, 810, 318, 49]
