"""A fixture with a folder of small images."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three classes of 4 training and 2 test images. Images are 10 x 8 pixels of a single colour."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("ant", "bee", "cat")):
            folder = tmp_path / "data" / "beasts" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (10, 8), (50 * label, 10 * number, 200)).save(folder / f"{number}.png")
            (folder / "notes.txt").write_text("no image")
    return tmp_path / "data"
