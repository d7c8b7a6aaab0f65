"""Rotated tasks: each shows the same images turned by an angle of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from supsup_core.datasets.base import Dataset
from supsup_core.errors import InputError
from supsup_core.tasks.base import BENCHMARKS, AlteredTask, Benchmark, Task


def rotation(shape: tuple[int, int], degrees: float) -> tuple[Tensor, Tensor]:
    """The nearest source pixel of each pixel of an image turned counterclockwise about its centre.

    Returns flat source indices (H * W,), int64, and whether the source lies outside the image (H * W,), bool.
    """
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    dy, dx = y - (height - 1) / 2, x - (width - 1) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # rounded first, so that no machine's last bit decides between two neighbours
    from_x = np.floor(np.round(cos * dx - sin * dy + (width - 1) / 2, 9) + 0.5)
    from_y = np.floor(np.round(sin * dx + cos * dy + (height - 1) / 2, 9) + 0.5)
    outside = (from_x < 0) | (from_x >= width) | (from_y < 0) | (from_y >= height)
    source = np.where(outside, 0, from_y * width + from_x).astype(np.int64)
    return torch.from_numpy(source.ravel()), torch.from_numpy(outside.ravel())


class RotatedTask(AlteredTask):
    """One angle. Images keep their shape; what lies outside the original is black (pixel 0)."""

    def __init__(self, dataset: Dataset, shape: tuple[int, int], degrees: float) -> None:
        super().__init__(dataset)
        self._shape = shape
        self._source, self._outside = rotation(shape, degrees)
        self._black = dataset.normalise(torch.zeros(1, dtype=torch.uint8))

    def alter(self, pixels: Tensor) -> Tensor:
        turned = pixels.index_select(1, self._source)
        turned[:, self._outside] = self._black
        return turned.view(-1, *self._shape)


@BENCHMARKS.register("rotated")
@dataclass(frozen=True, kw_only=True)
class Rotated(Benchmark):
    """Task i turns all images by i * `degrees`, counterclockwise, with nearest-neighbour interpolation.

    The paper's RotatedMNIST is 36 tasks 10 degrees apart. The tasks do not depend on the seed.
    """

    num_tasks: int = 36
    degrees: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.source().shape) != 2:
            raise InputError(f"base: {self.base_name} has no grey images to turn; use mnist or digits")
        if self.degrees == 0:
            raise InputError("degrees: 0 makes every task the same; the paper takes 10")
        angles: set[float] = set()
        for index in range(self.num_tasks):
            angle = round(index * self.degrees % 360, 6) % 360
            if angle in angles:
                raise InputError(
                    f"num_tasks: with degrees={self.degrees:g} task {index} is turned as an earlier one is; ask for "
                    f"{index} tasks at most, or change degrees"
                )
            angles.add(angle)

    def task(self, index: int, dataset: Dataset, seed: int) -> Task:
        height, width = self.source().shape
        return RotatedTask(dataset, (height, width), index * self.degrees)
