"""Decodes one compressed image file to a square of pixels."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from supsup_core.errors import CorruptError, InputError
from supsup_core.input_files import open_file

DECODER_VERSION = 2
"""The version of `decode_square`. Raise this number with any change that alters the decoded pixels."""

_MOST_PIXELS = 40_000_000
"""The largest number of pixels of a resized image. Of an image that would become larger, only the part around the
centre is resized."""

_MOST_BYTES = 1 << 28
"""The largest size of an image file, in bytes."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The formats that are decoded, independently of a file's suffix. Pillow starts other programs for some further
formats, such as Ghostscript for EPS."""


@dataclass(frozen=True)
class ImageFile:
    """One compressed image: `size` bytes of a file or of an archive, starting at byte `offset`.

    `name`: the class and file name, unique within the training or test part. `label`: the class number. `changed`: the
    modification time of the file or archive, in nanoseconds. `inode`: the number of the file or archive on its disk.
    """

    path: Path
    name: str
    label: int
    size: int
    changed: int
    offset: int = 0
    inode: int = 0

    def read(self) -> bytes:
        """The compressed bytes of the image. Raises InputError if the file is no regular file, or is too large."""
        if self.size > _MOST_BYTES:
            raise InputError(
                f"{self.path}: {self.name} has {self.size:,} bytes, more than {_MOST_BYTES:,}; remove this image"
            )
        with open_file(self.path) as file:
            file.seek(self.offset)
            return file.read(self.size)


_DECODING_ERRORS = (OSError, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, struct.error, zlib.error,
                    Image.DecompressionBombError)  # fmt: skip
"""The exceptions that Pillow raises for a damaged file, or for an image with more than twice Image.MAX_IMAGE_PIXELS
pixels."""


def decode_square(file: ImageFile, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Decodes an image, resizes its short side to `side`, and returns the central square, uint8 (3, side, side).

    The image is turned as its EXIF orientation says. 16-bit grey levels are scaled to 8 bits. Transparency is ignored.
    Raises CorruptError if the file cannot be decoded.
    """
    content = file.read()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images before it refuses larger ones
            with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
                image = ImageOps.exif_transpose(_in_8_bits(opened)).convert("RGB")
    except _DECODING_ERRORS as error:
        where = str(file.path) if str(file.path).endswith(file.name) else f"{file.path}: {file.name}"
        raise CorruptError(
            f"{where}: cannot be decoded ({error}); replace this image with an intact copy, or remove it"
        ) from error
    scale = side / min(image.size)
    width, height = (max(side, round(extent * scale)) for extent in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    if width * height > _MOST_PIXELS:
        across, down = image.width / width, image.height / height
        centre = (left * across, top * down, (left + side) * across, (top + side) * down)
        return _pixels(image.resize((side, side), Image.Resampling.BILINEAR, box=centre))
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return _pixels(image.crop((left, top, left + side, top + side)))


def _pixels(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Returns the pixels of an RGB image, uint8 (3, height, width)."""
    return np.asarray(image, np.uint8).transpose(2, 0, 1)


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Returns an image with 8 bits per channel. 16-bit grey levels are divided by 257, so that white stays white."""
    if not image.mode.startswith("I"):
        return image
    levels = np.asarray(image).astype(np.int64)
    return Image.fromarray(((levels.clip(0, 65535) + 128) // 257).astype(np.uint8))
