"""Image folders: what is read, what is kept of it, what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from supsup_core.datasets.augmentation import crop_and_flip, middle, resized_crop_and_flip
from supsup_core.datasets.base import base_from
from supsup_core.datasets.folders import ImageFolder
from supsup_core.datasets.image_files import ImageFile, square
from supsup_core.errors import CorruptError, InputError
from supsup_core.tasks import BENCHMARKS


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three classes of 4 training and 2 test images, 10 x 8, each of one colour of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("ant", "bee", "cat")):
            folder = tmp_path / "data" / "beasts" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (10, 8), (50 * label, 10 * number, 200)).save(folder / f"{number}.png")
            (folder / "notes.txt").write_text("no image")
    return tmp_path / "data"


def beasts(root: Path) -> ImageFolder:
    return ImageFolder(folder="beasts", num_classes=3, side=4).resolved(root)


def test_images_come_with_the_label_of_their_folder_in_order(root: Path) -> None:
    dataset = beasts(root).load(root)
    assert dataset.train.pixels.shape == (12, 3, 4, 4)
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for number, label in enumerate(dataset.train.labels.tolist()):
        assert dataset.train.pixels[number, :, 2, 2].tolist() == [50 * label, 10 * (number % 4), 200]


def test_a_second_load_decodes_nothing_and_a_damaged_file_is_made_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = beasts(root).load(root).train.pixels.clone()
    with monkeypatch.context() as patched:
        patched.setattr("supsup_core.datasets.image_files.square", None)
        assert torch.equal(beasts(root).load(root).train.pixels, wanted)
    (file,) = (root.parent / "cache").rglob("train-*.u8")
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(bytes(content))
    assert torch.equal(beasts(root).load(root).train.pixels, wanted)


def test_decoding_goes_on_where_it_was_cut_off(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = beasts(root).load(root).train.pixels.clone()
    (file,) = (root.parent / "cache").rglob("train-*.u8")
    file.with_suffix(".partial").write_bytes(file.read_bytes()[: 5 * 48 + 7])
    file.unlink()
    seen: list[ImageFile] = []

    def counting(path: ImageFile, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        seen.append(path)
        return square(path, side)

    monkeypatch.setattr("supsup_core.datasets.image_files.square", counting)
    assert torch.equal(beasts(root).load(root).train.pixels, wanted)
    assert len(seen) == 12 - 5


@pytest.mark.parametrize("note", ["", "{", "[]", "{}"])
def test_a_note_that_was_cut_off_costs_no_more_than_decoding_again(root: Path, note: str) -> None:
    wanted = beasts(root).load(root).train.pixels.clone()
    (file,) = (root.parent / "cache").rglob("train-*.u8")
    file.with_suffix(".json").write_text(note)
    assert torch.equal(beasts(root).load(root).train.pixels, wanted)


@pytest.mark.parametrize("field", ["mean", "std"])
@pytest.mark.parametrize("bad", [["a", "b", "c"], [0.5, 0.5, float("nan")], [True, 1, 1]])
def test_constants_that_normalise_nothing_are_refused(field: str, bad: list[object]) -> None:
    with pytest.raises(InputError, match=f"base.{field}: needs finite numbers"):
        base_from({"name": "image_folder", "folder": "beasts", "num_classes": 3, "side": 4, field: bad})
    with pytest.raises(InputError, match=r"base.std: needs finite numbers above 0, not 0"):
        base_from({"name": "image_folder", "folder": "beasts", "num_classes": 3, "side": 4, "std": [0, 0, 0]})
    with pytest.raises(InputError, match=r"base.folder: must be a name, not 5"):
        base_from({"name": "image_folder", "folder": 5, "num_classes": 3, "side": 4})


def test_images_that_cannot_be_decoded_are_named_whatever_pillow_raises(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.effect_noise((40, 40), 50).convert("RGB").save(out, "PNG")
    whole = out.getvalue()
    path, read = tmp_path / "noise.png", 0
    for place in range(8, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(CorruptError):
            square(ImageFile(path, path.name, 0, len(whole), 0), 8)
            read += 1
    assert 0 < read < len(range(8, len(whole), 37)) / 2


def test_two_that_load_at_once_decode_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ImageFile] = []

    def counting(path: ImageFile, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        seen.append(path)
        return square(path, side)

    monkeypatch.setattr("supsup_core.datasets.image_files.square", counting)
    base = beasts(root)
    threads = [threading.Thread(target=base.load, args=(root,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 18


@pytest.mark.parametrize(("size", "side"), [((40, 20), 10), ((20, 40), 10), ((10, 10), 10), ((7, 9), 10)])
def test_the_square_is_the_middle_of_the_image(tmp_path: Path, size: tuple[int, int], side: int) -> None:
    width, height = size
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[:, :, 0] = np.linspace(0, 255, width)[None, :]
    ramp[:, :, 1] = np.linspace(0, 255, height)[:, None]
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    path = tmp_path / "ramp.png"
    found = square(ImageFile(path, path.name, 0, path.stat().st_size, 0), side)
    assert found.shape == (3, side, side)
    for channel in (0, 1):
        assert abs(float(found[channel].mean()) - 127.5) < 13
    spans = [float(found[0, 0, -1]) - float(found[0, 0, 0]), float(found[1, -1, 0]) - float(found[1, 0, 0])]
    whole = [255 * min(1.0, height / width), 255 * min(1.0, width / height)]
    for span, expected in zip(spans, whole, strict=True):
        assert abs(span - expected) < 40


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("class", "4 classes, and num_classes says 3"),
        ("empty", "no images"),
        ("part", "no such folder; test/<class>/<images> is looked for there"),
    ],
)
def test_folders_that_do_not_fit_are_refused(root: Path, harm: str, words: str) -> None:
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


def test_parts_with_other_classes_are_refused(root: Path) -> None:
    (root / "beasts" / "test" / "ant").rename(root / "beasts" / "test" / "dog")
    with pytest.raises(InputError, match="class 'ant' is not in both train and test"):
        beasts(root)


def test_an_image_that_was_painted_over_is_decoded_again(root: Path) -> None:
    beasts(root).load(root)
    path = root / "beasts" / "train" / "bee" / "2.png"
    size = path.stat().st_size
    Image.new("RGB", (10, 8), (51, 20, 200)).save(path)
    assert path.stat().st_size == size
    assert beasts(root).load(root).train.pixels[6, :, 2, 2].tolist() == [51, 20, 200]


def test_a_file_that_is_no_image_is_named(root: Path) -> None:
    (root / "beasts" / "train" / "bee" / "2.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(CorruptError, match=r"bee/2\.png: cannot be decoded"):
        beasts(root).load(root)


def test_a_folder_that_changed_since_the_plan_is_found_out(root: Path) -> None:
    base = beasts(root)
    os.remove(root / "beasts" / "train" / "bee" / "2.png")
    with pytest.raises(CorruptError, match="changed since the sweep was first planned"):
        base.load(root)
    assert base != beasts(root)


def test_a_base_is_config(root: Path) -> None:
    node = {"name": "image_folder", "folder": "beasts", "num_classes": 3, "side": 4, "mean": [0.5, 0.5, 0.5]}
    benchmark = BENCHMARKS["split"](base=node, num_tasks=3, labels_per_task=1)
    whole = benchmark.with_base(benchmark.source().resolved(root))
    assert whole.source().checksum() == beasts(root).checksum()
    assert (whole.base_name, whole.input_shape) == ("image_folder", (3, 4, 4))
    assert BENCHMARKS["split"](
        **json.loads(json.dumps({"base": whole.base, "num_tasks": 3, "labels_per_task": 1}))
    ) == (replace(whole, base=json.loads(json.dumps(whole.base))))
    for change, words in (
        ({"folders": "x"}, "base: unknown key 'folders'; did you mean 'folder'"),
        ({"side": 0}, "base.side: must be a whole number"),
        ({"mean": [1.0]}, "base.mean: needs a number"),
        ({"side": "big"}, "base.side: must be a whole number"),
        ({"mean": 3}, "base: a value has the wrong type"),
    ):
        with pytest.raises(InputError, match=words):
            BENCHMARKS["split"](base={**node, **change})
    with pytest.raises(InputError, match=r"base\.num_classes: missing"):
        BENCHMARKS["split"](base={"name": "image_folder", "folder": "beasts"})


def test_real_photographs_are_read(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    base = ImageFolder(folder="cifar10-jpeg", num_classes=10).resolved(data_root)
    dataset = base.load(data_root)
    assert dataset.train.pixels.shape == (10_000, 3, 32, 32)
    assert dataset.test.labels.bincount().tolist() == [200] * 10
    means = dataset.train.pixels.float().mean((0, 2, 3)) / 255
    torch.testing.assert_close(means, torch.tensor([0.491, 0.482, 0.447]), atol=0.01, rtol=0)


def test_crops_and_flips_are_drawn_from_their_seed_and_keep_the_picture() -> None:
    x = torch.arange(1.0, 2 * 3 * 32 * 32 + 1).view(2, 3, 32, 32).repeat(50, 1, 1, 1)
    black = torch.full((1, 3, 1, 1), -5.0)
    found = crop_and_flip(x, 7, black, 32)
    assert torch.equal(found, crop_and_flip(x, 7, black, 32))
    assert not torch.equal(found, crop_and_flip(x, 8, black, 32))
    shifts, mirrored = set(), 0
    for image, original in zip(found, x, strict=True):
        centre = float(image[0, 16, 16])
        row, column = divmod(int(centre - float(original[0, 0, 0])), 32)
        right = float(image[0, 16, 17]) - centre
        assert abs(right) == 1
        mirrored += right < 0
        shifts.add((row - 16, column - 16 if right > 0 else 15 - column))
        assert abs(row - 16) <= 4
    assert set(found[found < 1].tolist()) == {-5.0}
    assert 30 < mirrored < 70
    assert len(shifts) > 40


def test_resized_crops_are_parts_of_the_picture_enlarged() -> None:
    """On ramps of brightness: a part of a ramp is a ramp, whose ends tell where the part lay."""
    side, count = 64, 200
    ramp = (torch.arange(side) + 0.5) / side
    x = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side)]).expand(count, 2, side, side)
    plain = resized_crop_and_flip(torch.full((64, 2, 40, 60), 2.0), 7, torch.zeros(1, 2, 1, 1), 56)
    torch.testing.assert_close(plain, torch.full((64, 2, 56, 56), 2.0))  # nothing from beyond the edge
    found = resized_crop_and_flip(x, 7, torch.zeros(1, 2, 1, 1), 56)
    assert found.shape == (count, 2, 56, 56)
    assert torch.equal(found, resized_crop_and_flip(x, 7, torch.zeros(1, 2, 1, 1), 56))
    assert not torch.equal(found, resized_crop_and_flip(x, 8, torch.zeros(1, 2, 1, 1), 56))
    wide, high = (found[:, 0, 28, -10] - found[:, 0, 28, 10]), (found[:, 1, -10, 28] - found[:, 1, 10, 28])
    scale = 56 / (56 - 20)
    wide, high = scale * wide, scale * high  # of the image, negative where it is mirrored
    assert (high > 0).all()
    assert 70 < int((wide < 0).sum()) < 130
    areas, ratios = wide.abs() * high, wide.abs() / high
    assert float(areas.min()) > 0.06
    assert 0.45 < float(areas.mean()) < 0.6
    assert float(ratios.min()) > 0.65
    assert float(ratios.max()) < 1.5
    assert 0.48 < float(found.mean()) < 0.52


def test_a_crop_shows_the_middle_but_where_it_is_drawn(root: Path) -> None:
    node = {"name": "image_folder", "folder": "beasts", "num_classes": 3, "side": 4}
    split = BENCHMARKS["split"](base=node, num_tasks=1, labels_per_task=3, crop=2, augment="resized_crop_flip")
    dataset = beasts(root).load(root)
    task = split.task(0, dataset, 0)
    indices = torch.arange(5)
    whole = BENCHMARKS["split"](base=node, num_tasks=1, labels_per_task=3).task(0, dataset, 0)
    assert split.input_shape == (3, 2, 2)
    assert torch.equal(task.test_batch(indices)[0], middle(whole.test_batch(indices)[0], 2))
    assert torch.equal(task.plain_train_batch(indices)[0], whole.plain_train_batch(indices)[0][:, :, 1:3, 1:3])
    assert task.train_batch(indices)[0].shape == (5, 3, 2, 2)
    for change, words in (({"crop": 5}, "crop: must be from 1 to 4"), ({"base": "mnist"}, "no photographs")):
        with pytest.raises(InputError, match=words):
            BENCHMARKS["split"](**{"base": node, "num_tasks": 1, "crop": 2, **change})
