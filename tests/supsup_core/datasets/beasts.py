"""A small folder of images."""

from __future__ import annotations

from pathlib import Path

from supsup_core.datasets.folders import ImageFolder


def beasts(root: Path) -> ImageFolder:
    return ImageFolder(folder="beasts", num_classes=3, side=4).resolved(root)
