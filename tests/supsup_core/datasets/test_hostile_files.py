"""Files of datasets that would fill the memory, wait for ever or start other programs are refused in one line."""

from __future__ import annotations

import gzip
import io
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from supsup_core.datasets import mnist
from supsup_core.datasets.image_decoding import ImageFile, decode_square
from supsup_core.errors import CorruptError, InputError
from tests.supsup_core.test_input_files import ODD_FILES

IMAGES = "train-images-idx3-ubyte.gz"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root in which the files of MNIST exist, but are empty."""
    (tmp_path / "mnist").mkdir()
    for name in mnist.MNIST.files.md5:
        (tmp_path / "mnist" / name).touch()
    return tmp_path


@pytest.fixture
def peak() -> Iterator[Callable[[], int]]:
    """Returns a function that returns the peak of allocated bytes since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def bomb(first: bytes, gigabytes: int) -> bytes:
    """Returns a small gzip file of `first` and some gigabytes of zeros."""
    return gzip.compress(first) + gzip.compress(bytes(1 << 26), 9) * 16 * gigabytes


@pytest.mark.parametrize("header", [b"", b"\0\0\x08\x03\0\0\xea\x60\0\0\0\x1c\0\0\0\x1c"], ids=["zeros", "a header"])
def test_a_bomb_in_place_of_mnist_is_refused_in_little_memory(
    root: Path, peak: Callable[[], int], header: bytes
) -> None:
    (root / "mnist" / IMAGES).write_bytes(bomb(header, 4))
    with pytest.raises(CorruptError, match=f"{IMAGES}: has more than 47,040,016 bytes when it is decompressed; delete"):
        mnist.MNIST().load(root)
    assert peak() < 300_000_000


def test_a_file_that_is_larger_than_the_published_one_is_not_decompressed(root: Path, peak: Callable[[], int]) -> None:
    with (root / "mnist" / IMAGES).open("wb") as file:
        file.truncate(4 << 30)
    with pytest.raises(InputError, match=rf"{IMAGES}: is larger than 47,5\d\d,\d\d\d bytes"):
        mnist.MNIST().load(root)
    assert peak() < 100_000_000


@pytest.mark.parametrize("kind", ODD_FILES)
def test_what_is_no_file_in_place_of_mnist_is_named(root: Path, kind: str) -> None:
    make, words = ODD_FILES[kind]
    (root / "mnist" / IMAGES).unlink()
    make(root / "mnist" / IMAGES)
    for read in (mnist.MNIST().load, mnist.MNIST().verify):
        with pytest.raises(InputError, match=f"{IMAGES}: cannot be read.*{words}"):
            read(root)


def image(content: bytes, folder: Path, size: int | None = None) -> ImageFile:
    path = folder / "a.png"
    path.write_bytes(content)
    return ImageFile(path, "a.png", 0, len(content) if size is None else size, 0)


def test_a_picture_of_too_many_pixels_is_refused_in_one_line(tmp_path: Path, peak: Callable[[], int]) -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    with pytest.raises(CorruptError, match=r"^[^\n]*a\.png: cannot be decoded \(Image size \(400000000 pixels\) exc"):
        decode_square(image(buffer.getvalue(), tmp_path), 8)
    assert peak() < 300_000_000


def test_a_picture_whose_size_is_a_lie_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png has 1,000,000,000,000,000,000 bytes, more than 268,435,456; remove"):
        image(b"", tmp_path, 10**18).read()


@pytest.mark.parametrize("kind", ["EPS", "PCX", "PPM"])
def test_other_formats_are_not_decoded_whatever_the_suffix_says(tmp_path: Path, kind: str) -> None:
    """For EPS, Pillow would start Ghostscript."""
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, kind)
    with pytest.raises(CorruptError, match="cannot be decoded"):
        decode_square(image(buffer.getvalue(), tmp_path), 8)
