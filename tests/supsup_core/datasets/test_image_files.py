"""Decoding of image files: the cache, resuming an interrupted build, and files that are refused."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from supsup_core.datasets.base import base_from
from supsup_core.datasets.image_decoding import ImageFile, decode_square
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


def decoded(path: Path, side: int = 32) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return decode_square(ImageFile(path, path.name, 0, path.stat().st_size, 0), side)


def test_16_bit_grey_gives_the_pixels_of_8_bit_grey(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint16), (64, 1))
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray((ramp * 257).astype(np.uint16)).save(tmp_path / "16.png")
    assert np.array_equal(decoded(tmp_path / "16.png"), decoded(tmp_path / "8.png"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pictures_of_every_mode_are_decoded(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "white.png"
    if mode == "I;16":
        Image.fromarray(np.full((40, 40), 65535, np.uint16)).save(path)
    else:
        Image.new("RGB", (40, 40), "white").convert(mode).save(path)
    assert (decoded(path) == 255).all()


def test_a_picture_is_turned_as_its_orientation_says(tmp_path: Path) -> None:
    upright = Image.new("RGB", (40, 40), "black")
    upright.paste("white", (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    assert np.array_equal(decoded(tmp_path / "turned.png"), decoded(tmp_path / "upright.png"))


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1)])
def test_a_thin_picture_takes_little_memory(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (10, 20, 30)).save(tmp_path / "thin.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = decoded(tmp_path / "thin.png", 256)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 300_000  # kilobytes
    assert (found == np.array([10, 20, 30], np.uint8)[:, None, None]).all()


def test_a_long_picture_has_nearly_the_pixels_that_resizing_all_of_it_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "long.png")
    whole = decoded(tmp_path / "long.png", 64).astype(int)
    monkeypatch.setattr("supsup_core.datasets.image_decoding._MOST_PIXELS", 1000)
    assert np.abs(decoded(tmp_path / "long.png", 64).astype(int) - whole).max() <= 1


def test_the_key_covers_the_contents_of_the_images(root: Path) -> None:
    before = beasts(root).checksum()
    path = root / "beasts" / "train" / "bee" / "2.png"
    content, stat = path.read_bytes(), path.stat()
    path.write_bytes(content)
    assert beasts(root).checksum() == before  # a new time, and the same content
    path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert beasts(root).checksum() != before


def test_a_key_of_names_and_sizes_is_still_read_with_a_warning(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = beasts(root)
    train, test = base.listing(root / "beasts")
    listed = [(part, i) for part, found in zip(base.parts, (train, test), strict=True) for i in found]
    lines = [f"{part}/{image.name} {image.label} {image.size}\n" for part, image in listed]
    old = dataclasses.replace(base, checksum_of_files=hashlib.sha256("".join(lines).encode()).hexdigest())
    assert torch.equal(old.load(root).train.pixels, base.load(root).train.pixels)
    assert "an earlier version of supsup planned this sweep" in caplog.text


def test_hidden_files_and_folders_are_left_out_and_dead_links_are_named(root: Path) -> None:
    before = beasts(root).checksum()
    (root / "beasts" / "train" / ".ipynb_checkpoints").mkdir()
    (root / "beasts" / "train" / "bee" / "._2.png").write_bytes(b"of a Mac")
    assert beasts(root).checksum() == before
    link = root / "beasts" / "train" / "bee" / "dead.png"
    link.symlink_to("nowhere.png")
    with pytest.raises(InputError, match=r"dead\.png: is not a file, or is a link to a missing file"):
        beasts(root)
    link.unlink()
    os.mkfifo(link)
    with pytest.raises(InputError, match=r"dead\.png: is not a file"):
        beasts(root)


def test_names_of_any_bytes_are_read(root: Path) -> None:
    folder = os.fsencode(root / "beasts" / "train" / "bee")
    os.rename(os.path.join(folder, b"2.png"), os.path.join(folder, b"\xff\xfe.png"))
    assert len(beasts(root).load(root).train.labels) == 12
