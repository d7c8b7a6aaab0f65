"""Decoding of image files: the cache, resuming an interrupted build, and files that are refused."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from supsup_core.datasets.base import base_from
from supsup_core.datasets.image_files import ImageFile, decode_square
from supsup_core.errors import CorruptError, InputError
from tests.supsup_core.datasets.beasts import beasts


def test_a_second_load_uses_the_cache_and_a_damaged_cache_is_rebuilt(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = beasts(root).load(root).train.pixels.clone()
    with monkeypatch.context() as patched:
        patched.setattr("supsup_core.datasets.image_files.decode_square", None)
        assert torch.equal(beasts(root).load(root).train.pixels, wanted)
    (file,) = (root.parent / "cache").rglob("train-*.u8")
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(bytes(content))
    assert torch.equal(beasts(root).load(root).train.pixels, wanted)


def test_interrupted_decoding_resumes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = beasts(root).load(root).train.pixels.clone()
    (file,) = (root.parent / "cache").rglob("train-*.u8")
    file.with_suffix(".partial").write_bytes(file.read_bytes()[: 5 * 48 + 7])
    file.unlink()
    seen: list[ImageFile] = []

    def counting(path: ImageFile, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        seen.append(path)
        return decode_square(path, side)

    monkeypatch.setattr("supsup_core.datasets.image_files.decode_square", counting)
    assert torch.equal(beasts(root).load(root).train.pixels, wanted)
    assert len(seen) == 12 - 5


@pytest.mark.parametrize("note", ["", "{", "[]", "{}"])
def test_a_truncated_checksum_file_causes_a_rebuild(root: Path, note: str) -> None:
    wanted = beasts(root).load(root).train.pixels.clone()
    (file,) = (root.parent / "cache").rglob("train-*.u8")
    file.with_suffix(".json").write_text(note)
    assert torch.equal(beasts(root).load(root).train.pixels, wanted)


@pytest.mark.parametrize("field", ["mean", "std"])
@pytest.mark.parametrize("bad", [["a", "b", "c"], [0.5, 0.5, float("nan")], [True, 1, 1]])
def test_invalid_means_and_standard_deviations_are_refused(field: str, bad: list[object]) -> None:
    with pytest.raises(InputError, match=f"base.{field}: must be finite numbers"):
        base_from({"name": "image_folder", "folder": "beasts", "num_classes": 3, "side": 4, field: bad})
    with pytest.raises(InputError, match=r"base.std: must be finite numbers above 0, not 0"):
        base_from({"name": "image_folder", "folder": "beasts", "num_classes": 3, "side": 4, "std": [0, 0, 0]})
    with pytest.raises(InputError, match=r"base.folder: must be a name, not 5"):
        base_from({"name": "image_folder", "folder": 5, "num_classes": 3, "side": 4})


def test_every_error_of_pillow_becomes_a_corrupt_error(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.effect_noise((40, 40), 50).convert("RGB").save(out, "PNG")
    whole = out.getvalue()
    path, read = tmp_path / "noise.png", 0
    for place in range(8, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(CorruptError):
            decode_square(ImageFile(path, path.name, 0, len(whole), 0), 8)
            read += 1
    assert 0 < read < len(range(8, len(whole), 37)) / 2


def test_concurrent_loads_decode_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ImageFile] = []

    def counting(path: ImageFile, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        seen.append(path)
        return decode_square(path, side)

    monkeypatch.setattr("supsup_core.datasets.image_files.decode_square", counting)
    base = beasts(root)
    threads = [threading.Thread(target=base.load, args=(root,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 18


@pytest.mark.parametrize(("size", "side"), [((40, 20), 10), ((20, 40), 10), ((10, 10), 10), ((7, 9), 10)])
def test_the_decoded_square_is_the_centre_of_the_image(tmp_path: Path, size: tuple[int, int], side: int) -> None:
    width, height = size
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[:, :, 0] = np.linspace(0, 255, width)[None, :]
    ramp[:, :, 1] = np.linspace(0, 255, height)[:, None]
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    path = tmp_path / "ramp.png"
    found = decode_square(ImageFile(path, path.name, 0, path.stat().st_size, 0), side)
    assert found.shape == (3, side, side)
    for channel in (0, 1):
        assert abs(float(found[channel].mean()) - 127.5) < 13
    spans = [float(found[0, 0, -1]) - float(found[0, 0, 0]), float(found[1, -1, 0]) - float(found[1, 0, 0])]
    whole = [255 * min(1.0, height / width), 255 * min(1.0, width / height)]
    for span, expected in zip(spans, whole, strict=True):
        assert abs(span - expected) < 40


def test_an_image_of_the_same_size_that_changed_is_decoded_again(root: Path) -> None:
    beasts(root).load(root)
    path = root / "beasts" / "train" / "bee" / "2.png"
    size = path.stat().st_size
    Image.new("RGB", (10, 8), (51, 20, 200)).save(path)
    assert path.stat().st_size == size
    assert beasts(root).load(root).train.pixels[6, :, 2, 2].tolist() == [51, 20, 200]


def test_a_file_that_is_not_an_image_is_named(root: Path) -> None:
    (root / "beasts" / "train" / "bee" / "2.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(CorruptError, match=r"bee/2\.png: cannot be decoded"):
        beasts(root).load(root)


def test_a_folder_that_changed_since_the_plan_is_refused(root: Path) -> None:
    base = beasts(root)
    os.remove(root / "beasts" / "train" / "bee" / "2.png")
    with pytest.raises(CorruptError, match="changed since the sweep was first planned"):
        base.load(root)
    assert base != beasts(root)
