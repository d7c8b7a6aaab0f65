"""Training images altered at random: what is drawn depends on a seed alone."""

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
"""Black pixels on each side before a `crop_flip`."""

TRIES = 10
"""Areas drawn for a `resized_crop_flip` before the whole image is taken."""


def middle(x: Tensor, side: int | None) -> Tensor:
    """The middle squares of images (batch, channels, height, width); None: all of them."""
    if side is None:
        return x
    top, left = ((extent - side) // 2 for extent in x.shape[2:])
    return x[:, :, top : top + side, left : left + side]


def crop_and_flip(x: Tensor, child: int, black: Tensor, side: int) -> Tensor:
    """Images (batch, channels, height, width), each cropped to a square at random after padding with black, half of
    them mirrored: (batch, channels, side, side).

    child: the seed of what is drawn. black: (1, channels, 1, 1), as it is among the images.
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
    """Images (batch, channels, height, width), a part of each enlarged to (side, side), half of them mirrored.

    The part has 8 to 100 % of the image's area and is 3 / 4 to 4 / 3 as wide as it is high; where none of ten draws
    fits into the image, the largest square in its middle is taken. Bilinear.
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
    # a share of the room that is left, or its middle
    share_x, share_y = (np.where(found, drawn[:, 2 * TRIES + axis], 0.5) for axis in (0, 1))
    left, top = np.floor(share_x * (width - wide + 1)), np.floor(share_y * (height - high + 1))
    left, top = np.minimum(left, width - wide), np.minimum(top, height - high)
    mirror = np.where(drawn[:, -1] < 0.5, 1.0, -1.0)
    grid = _grid((left, top, wide, high), mirror, (height, width), side)
    return torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _grid(
    boxes: tuple[npt.NDArray[np.float64], ...], mirror: npt.NDArray[np.float64], image: tuple[int, int], side: int
) -> Tensor:
    """Where each pixel of the (side, side) result is in an image of (height, width), as grid_sample takes it."""
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
"""Images, seed, black and the side of the result to altered images."""
