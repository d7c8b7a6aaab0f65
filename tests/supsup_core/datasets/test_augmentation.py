"""Random augmentation: crops and flips, and their random draws."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from supsup_core.datasets.augmentation import crop_and_flip, crop_centre, resized_crop_and_flip
from supsup_core.errors import InputError
from supsup_core.tasks import BENCHMARKS
from tests.supsup_core.datasets.beasts import beasts


def test_crops_and_flips_depend_on_the_seed_and_keep_the_content() -> None:
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


def test_resized_crops_are_enlarged_parts_of_the_image() -> None:
    """The images are linear ramps. A crop of a ramp is a ramp too, and its end values show the position of the crop."""
    side, count = 64, 200
    ramp = (torch.arange(side) + 0.5) / side
    x = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side)]).expand(count, 2, side, side)
    plain = resized_crop_and_flip(torch.full((64, 2, 40, 60), 2.0), 7, torch.zeros(1, 2, 1, 1), 56)
    torch.testing.assert_close(plain, torch.full((64, 2, 56, 56), 2.0))  # no pixel from outside the image
    found = resized_crop_and_flip(x, 7, torch.zeros(1, 2, 1, 1), 56)
    assert found.shape == (count, 2, 56, 56)
    assert torch.equal(found, resized_crop_and_flip(x, 7, torch.zeros(1, 2, 1, 1), 56))
    assert not torch.equal(found, resized_crop_and_flip(x, 8, torch.zeros(1, 2, 1, 1), 56))
    wide, high = (found[:, 0, 28, -10] - found[:, 0, 28, 10]), (found[:, 1, -10, 28] - found[:, 1, 10, 28])
    scale = 56 / (56 - 20)
    wide, high = scale * wide, scale * high  # size in the image; negative if mirrored
    assert (high > 0).all()
    assert 70 < int((wide < 0).sum()) < 130
    areas, ratios = wide.abs() * high, wide.abs() / high
    assert float(areas.min()) > 0.06
    assert 0.45 < float(areas.mean()) < 0.6
    assert float(ratios.min()) > 0.65
    assert float(ratios.max()) < 1.5
    assert 0.48 < float(found.mean()) < 0.52


def test_without_augmentation_the_crop_is_the_centre(root: Path) -> None:
    node = {"name": "image_folder", "folder": "beasts", "num_classes": 3, "side": 4}
    split = BENCHMARKS["split"](base=node, num_tasks=1, labels_per_task=3, crop=2, augment="resized_crop_flip")
    dataset = beasts(root).load(root)
    task = split.task(0, dataset, 0)
    indices = torch.arange(5)
    whole = BENCHMARKS["split"](base=node, num_tasks=1, labels_per_task=3).task(0, dataset, 0)
    assert split.input_shape == (3, 2, 2)
    assert torch.equal(task.test_batch(indices)[0], crop_centre(whole.test_batch(indices)[0], 2))
    assert torch.equal(task.plain_train_batch(indices)[0], whole.plain_train_batch(indices)[0][:, :, 1:3, 1:3])
    assert task.train_batch(indices)[0].shape == (5, 3, 2, 2)
    for change, words in (({"crop": 5}, "crop: must be from 1 to 4"), ({"base": "mnist"}, "only colour images")):
        with pytest.raises(InputError, match=words):
            BENCHMARKS["split"](**{"base": node, "num_tasks": 1, "crop": 2, **change})
