"""Rotated tasks: all tasks show the same images, but each task rotates them by its own angle."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from supsup_core.datasets.base import Dataset
from supsup_core.errors import InputError
from supsup_core.field_limits import limited
from supsup_core.registry import ChecksFields
from supsup_core.tasks.base import BENCHMARKS, AlteredTask, Benchmark, Task


def rotation(shape: tuple[int, int], degrees: float) -> tuple[Tensor, Tensor]:
    """For each pixel of an image that is rotated counterclockwise about its centre: the nearest source pixel.

    shape: (H, W). Returns flat source indices (H * W,), int64, and a bool tensor (H * W,) that is True if the source
    pixel lies outside the image.
    """
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    dy, dx = y - (height - 1) / 2, x - (width - 1) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # rounded to 9 digits, so that machines whose last bits differ choose the same pixel
    from_x = np.floor(np.round(cos * dx - sin * dy + (width - 1) / 2, 9) + 0.5)
    from_y = np.floor(np.round(sin * dx + cos * dy + (height - 1) / 2, 9) + 0.5)
    outside = (from_x < 0) | (from_x >= width) | (from_y < 0) | (from_y >= height)
    source = np.where(outside, 0, from_y * width + from_x).astype(np.int64)
    return torch.from_numpy(source.ravel()), torch.from_numpy(outside.ravel())


def rotate_pixels(dataset: Dataset, shape: tuple[int, int], degrees: float) -> Callable[[Tensor], Tensor]:
    """Returns a function that rotates normalised pixels (batch, H * W) and returns images (batch, H, W).

    shape: (H, W). Pixels from outside the image are black (0 before normalisation).
    """
    source, outside = rotation(shape, degrees)
    black = dataset.normalise(torch.zeros(1, dtype=torch.uint8))

    def rotate(pixels: Tensor) -> Tensor:
        rotated = pixels.index_select(1, source)
        rotated[:, outside] = black
        return rotated.view(-1, *shape)

    return rotate


@final
@BENCHMARKS.register("rotated")
@dataclass(frozen=True, kw_only=True)
class Rotated(Benchmark, ChecksFields):
    """Task i rotates all images by i * `degrees`, counterclockwise, with nearest-neighbour interpolation.

    The paper's RotatedMNIST is 36 tasks 10 degrees apart. The tasks do not depend on the seed.
    """

    num_tasks: int = 36
    degrees: float = limited(10.0, least=-360, most=360)

    def check_fields(self) -> None:
        if len(self.source().shape) != 2:
            raise InputError(
                f"base: the images of {self.base_name} are not grey, and only grey images can be rotated; "
                "use mnist or digits"
            )
        if self.degrees == 0:
            raise InputError("degrees: 0 makes every task the same; set another angle, such as the paper's 10")
        angles: set[float] = set()
        for index in range(self.num_tasks):
            angle = round(index * self.degrees % 360, 6) % 360
            if angle in angles:
                raise InputError(
                    f"num_tasks: with degrees={self.degrees:g}, task {index} has the same rotation as an earlier task; "
                    f"set at most {index}, or change degrees"
                )
            angles.add(angle)

    def task(self, index: int, dataset: Dataset, seed: int) -> Task:
        height, width = self.source().shape
        return AlteredTask(dataset, rotate_pixels(dataset, (height, width), index * self.degrees))
