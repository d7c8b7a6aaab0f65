"""Random augmentation of training images. All random draws depend only on a seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from supsup_core import seeding

if TYPE_CHECKING:
    import numpy.typing as npt

PADDING = 4
"""The width in pixels of the black border that `crop_and_flip` adds."""

TRIES = 10
"""The number of random parts that `resized_crop_and_flip` draws for each image. The function uses the first part that
fits into the image."""


def crop_centre(x: Tensor, side: int | None) -> Tensor:
    """Crops images (batch, channels, height, width) to their central square of `side` pixels; None does not crop."""
    if side is None:
        return x
    top, left = ((extent - side) // 2 for extent in x.shape[2:])
    return x[:, :, top : top + side, left : left + side]


def crop_and_flip(x: Tensor, child: int, black: Tensor, side: int) -> Tensor:
    """Crops images x (batch, channels, height, width) at random positions to (batch, channels, side, side).

    Images are padded with a black border of PADDING pixels before the crop. Each crop is mirrored left to right with
    probability 1/2. child: the seed of the random draws. black: the normalised value of black, (1, channels, 1, 1).
    """
    count, _, height, width = x.shape
    words = seeding.raw_bits(child, 3 * count).reshape(3, count)
    spare = [extent + 2 * PADDING - side + 1 for extent in (height, width)]
    top, left = (torch.from_numpy((words[row] % np.uint64(spare[row])).astype(np.int64)) for row in (0, 1))
    mirrored = torch.from_numpy((words[2] >> np.uint64(63)).astype(bool))
    rows = top[:, None] + torch.arange(side)
    columns = left[:, None] + torch.arange(side)
    columns[mirrored] = columns[mirrored].flip(1)
    padded = torch.nn.functional.pad(x - black, (PADDING,) * 4) + black
    images = torch.arange(count)[:, None, None]
    return padded.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def resized_crop_and_flip(x: Tensor, child: int, black: Tensor, side: int) -> Tensor:
    """Returns random parts of images x (batch, channels, height, width), resized to (side, side).

    A part has 8 to 100 % of the image's area, and its width is 3 / 4 to 4 / 3 of its height. If none of TRIES draws
    fits into the image, the part is the largest square in the centre. Interpolation is bilinear. Each part is mirrored
    left to right with probability 1/2. child: the seed of the random draws. black: not used.
    """
    count, _, height, width = x.shape
    drawn = (seeding.uniform(child, (count, 2 * TRIES + 3), 0.5) + 0.5).astype(np.float64)
    area = height * width * (0.08 + 0.92 * drawn[:, :TRIES])
    ratio = np.exp(math.log(4 / 3) * (2 * drawn[:, TRIES : 2 * TRIES] - 1))
    wide, high = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (wide >= 1) & (wide <= width) & (high >= 1) & (high <= height)
    first = fits.argmax(1)
    found = fits.any(1)
    rows = np.arange(count)
    whole = min(height, width)
    wide, high = (np.where(found, sizes[rows, first], whole) for sizes in (wide, high))
    # the part lies at a random share of the free space, or in the centre if no draw fits
    share_x, share_y = (np.where(found, drawn[:, 2 * TRIES + axis], 0.5) for axis in (0, 1))
    left, top = np.floor(share_x * (width - wide + 1)), np.floor(share_y * (height - high + 1))
    left, top = np.minimum(left, width - wide), np.minimum(top, height - high)
    mirror = np.where(drawn[:, -1] < 0.5, 1.0, -1.0)
    grid = _grid((left, top, wide, high), mirror, (height, width), side)
    return torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _grid(
    boxes: tuple[npt.NDArray[np.float64], ...], mirror: npt.NDArray[np.float64], image: tuple[int, int], side: int
) -> Tensor:
    """The positions at which grid_sample reads each pixel of the results, (batch, side, side, 2).

    boxes: the left edge, top edge, width and height of each part in pixels, each (batch,). mirror: -1 for each part
    that is mirrored, else 1, (batch,). image: (height, width).
    """
    left, top, wide, high = boxes
    height, width = image
    theta = np.zeros((len(left), 2, 3))
    theta[:, 0, 0], theta[:, 0, 2] = mirror * wide / width, (2 * left + wide) / width - 1
    theta[:, 1, 1], theta[:, 1, 2] = high / height, (2 * top + high) / height - 1
    return torch.nn.functional.affine_grid(
        torch.from_numpy(theta).float(), [len(left), 1, side, side], align_corners=False
    )


AUGMENTATIONS: dict[str, Callable[[Tensor, int, Tensor, int], Tensor]] = {
    "crop_flip": crop_and_flip,
    "resized_crop_flip": resized_crop_and_flip,
}
"""Augmentations by name. Each augmentation takes the images, the seed, the value of black, and the side of the
result."""
