"""The small folder of images that the tests of datasets share."""

from __future__ import annotations

from pathlib import Path

from supsup_core.datasets.folders import ImageFolder


def beasts(root: Path) -> ImageFolder:
    return ImageFolder(folder="beasts", num_classes=3, side=4).resolved(root)
