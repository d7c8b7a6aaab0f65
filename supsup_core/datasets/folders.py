"""Datasets of image files in folders, one folder for each class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from supsup_core.datasets.base import BASES
from supsup_core.datasets.image_decoding import ImageFile
from supsup_core.datasets.image_files import MOST_SIDE, ImageFiles, in_folders
from supsup_core.errors import InputError
from supsup_core.field_limits import MOST_TASKS, limited
from supsup_core.registry import ChecksFields


@final
@BASES.register("image_folder")
@dataclass(frozen=True, kw_only=True)
class ImageFolder(ImageFiles, ChecksFields):
    """The images in `<root>/<folder>/<part>/<class>/*`. Classes are numbered in the order of their names.

    `train`, `test`: the folder names of the training and the test part. `num_classes`: the number of class folders.
    """

    num_classes: int
    side: int = limited(32, least=1, most=MOST_SIDE)
    train: str = "train"
    test: str = "test"

    def check_fields(self) -> None:
        if not isinstance(self.num_classes, int) or not 1 <= self.num_classes <= MOST_TASKS:
            raise InputError(f"num_classes: must be a whole number from 1 to {MOST_TASKS:,}, not {self.num_classes!r}")

    @property
    def parts(self) -> tuple[str, str]:
        return (self.train, self.test)

    @property
    def num_labels(self) -> int:
        return self.num_classes

    def listing(self, home: Path) -> tuple[list[ImageFile], list[ImageFile]]:
        says = f"benchmark.base.num_classes is {self.num_classes}; correct this key or the folders"
        train, test = (in_folders(home, part, self.num_classes, says) for part in self.parts)
        names = [{image.path.parent.name for image in listing} for listing in (train, test)]
        if odd := sorted(names[0] ^ names[1]):
            raise InputError(
                f"folder: {self.folder}: class {odd[0]!r} is in only one of the folders {self.train} and {self.test}; "
                "both must have the same classes"
            )
        return train, test
