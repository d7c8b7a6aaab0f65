"""Holds out part of the training images for validation, so that no hyperparameter is chosen on the test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.datasets.base import BASES, Base, Dataset, DerivedBase, Images, ReadsFiles, base_from, base_node
from supsup_core.errors import InputError


@final
@BASES.register("held_out")
@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut(Base, ReadsFiles, DerivedBase):
    """Divides the training images of the base dataset `of` into a training part and a test part.

    The test part is a random `share` of the images of each class, drawn with the seed `seed`. The training part is all
    other training images. The test images of `of` are not used. No image is copied: both parts are lists of indices
    into the training images of `of`, which are in memory or memory-mapped.
    """

    of: Any
    share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "of", base_node(base_from(self.of)))  # so that equal datasets have equal config nodes
        if isinstance(self._whole, HeldOut):
            raise InputError("of: held_out cannot be nested; name another base dataset")
        if not 0 < self.share < 1:
            raise InputError(f"share: must be between 0 and 1, not {self.share}")

    @property
    def _whole(self) -> Base:
        return base_from(self.of)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HeldOut) and base_node(self) == base_node(other)

    def __hash__(self) -> int:
        return hash((self._whole, self.share, self.seed))

    @property
    def shape(self) -> tuple[int, ...]:
        return self._whole.shape

    @property
    def num_labels(self) -> int:
        return self._whole.num_labels

    @property
    def resident_images(self) -> int:  # type: ignore[override]
        return self._whole.resident_images

    def source_base(self) -> Base:
        return self._whole

    def with_files(self, root: Path | None) -> Self:
        return type(self)(of=base_node(self._whole.resolved(root)), share=self.share, seed=self.seed)

    def checksum(self) -> str:
        return f"held_out/{self.share}/{self.seed}/{self._whole.checksum()}"

    def load(self, root: Path | None) -> Dataset:
        whole = self._whole.load(root)
        held = torch.zeros(len(whole.train.labels), dtype=torch.bool)
        for label in range(self.num_labels):
            places = torch.nonzero(whole.train.labels == label).flatten()
            count = round(self.share * len(places))
            if not 0 < count < len(places):
                raise InputError(
                    f"benchmark.base.share (search.held_out in a search): {self.share} of the {len(places)} training "
                    f"images of class {label} is {count}; choose a share that leaves at least one image of each class "
                    "in both parts"
                )
            drawn = seeding.permutation(seeding.child_seed(self.seed, "held_out", label), len(places))
            held[places[torch.from_numpy(drawn[:count])]] = True
        return Dataset(_part(whole.train, ~held), _part(whole.train, held), whole.mean, whole.std)


def _part(images: Images, chosen: Tensor) -> Images:
    """The images for which `chosen` (N,) is True, in the same order as in `images`."""
    places = torch.nonzero(chosen).flatten()
    rows = places if images.places is None else images.places.index_select(0, places)
    return Images(images.pixels, images.labels.index_select(0, places), rows)
