"""Photographs as compressed files, decoded once into a file that all processes of a machine share."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import math
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import PIL
import torch
from PIL import Image

from supsup_core.datasets.base import Base, Dataset, Images, ReadsFiles
from supsup_core.datasets.download import user_cache
from supsup_core.errors import CorruptError, InputError
from supsup_core.registry import ChecksFields

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
"""Compressed formats alone: other images of one shape have one size, by which a change could not be told."""

_DECODER = 1
"""Raised when what `square` makes of a file changes."""

_FLUSH = 512
"""Images decoded between two moments at which they are safe on disk."""

_HASHED_BYTES = 1 << 30
"""Decoded files up to this size are hashed at every load; larger ones are checked by their size."""


@dataclass(frozen=True)
class ImageFile:
    """One compressed image: a file, or `size` bytes from `offset` on of an archive.

    `name`: its class and file name, unique in its part. `changed`: the time of modification of the file it is in, in
    nanoseconds.
    """

    path: Path
    name: str
    label: int
    size: int
    changed: int
    offset: int = 0

    def read(self) -> bytes:
        """Its bytes."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, kw_only=True)
class ImageFiles(Base, ReadsFiles):
    """An abstract base of compressed photographs in `<root>/<folder>`; subclasses say where in it.

    Each is decoded to RGB, resized so that its short side is `side`, and cropped to the square in its middle. `mean`,
    `std`: of each channel. `checksum_of_files`, of names and sizes, is filled in when a sweep is planned; then the
    files may not change under it.
    """

    resident_images: ClassVar[int] = 0  # mapped from a file, which the system may drop from memory
    folder: str
    side: int
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    checksum_of_files: str | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # a config file has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != 3:
                raise InputError(f"{name}: needs a number for each of red, green and blue")
        for name, least in (("mean", -math.inf), ("std", 0.0)):
            for value in getattr(self, name):
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                if not (number and math.isfinite(value) and value > least):
                    raise InputError(f"{name}: needs finite numbers{' above 0' if least == 0 else ''}, not {value!r}")
        if not isinstance(self.side, int) or self.side < 1:
            raise InputError(f"side: must be a whole number from 1 on, not {self.side!r}")
        if isinstance(self, ChecksFields):
            self.check_fields()

    @property
    def shape(self) -> tuple[int, ...]:
        return (3, self.side, self.side)

    @property
    @abstractmethod
    def parts(self) -> tuple[str, str]:
        """The names of the training and the test part."""

    @abstractmethod
    def listing(self, home: Path) -> tuple[list[ImageFile], list[ImageFile]]:
        """Every image of the training and of the test part below `home`, in order. InputError where they are not."""

    def _listing(self, root: Path | None) -> tuple[list[ImageFile], list[ImageFile]]:
        if root is None:
            raise InputError(f"{self.folder} is looked for below the data root; set data=DIR or SUPSUP_DATA")
        return self.listing(root / self.folder)

    def with_files(self, root: Path | None) -> Self:
        return replace(self, checksum_of_files=self._checksum_of(self._listing(root)))

    def _checksum_of(self, listings: Sequence[Sequence[ImageFile]]) -> str:
        found = hashlib.sha256()
        for part, listing in zip(self.parts, listings, strict=True):
            for image in listing:
                found.update(f"{part}/{image.name} {image.label} {image.size}\n".encode())
        return found.hexdigest()

    def checksum(self) -> str:
        if self.checksum_of_files is None:
            raise InputError("base: image files are counted when a sweep is planned; plan it first")
        return self.checksum_of_files

    def load(self, root: Path | None) -> Dataset:
        listings = self._listing(root)
        if self._checksum_of(listings) != self.checksum():
            raise CorruptError(
                f"{self.folder}: its files have changed since the sweep was first planned; "
                "put them back, or give the sweep another name"
            )
        parts = [self._decoded(listing, part) for listing, part in zip(listings, self.parts, strict=True)]
        return Dataset(train=parts[0], test=parts[1], mean=self.mean, std=self.std)

    def _decoded(self, listing: Sequence[ImageFile], part: str) -> Images:
        times = hashlib.sha256(repr([image.changed for image in listing]).encode()).hexdigest()[:8]
        home = user_cache() / "images" / f"{self.checksum()[:16]}-{self.side}-{_DECODER}-{PIL.__version__}"
        stem = f"{part.replace('/', '_')}-{times}"
        try:
            home.mkdir(parents=True, exist_ok=True)
            with _locked(home / f"{stem}.lock"):
                file = _decode(listing, self.side, home / f"{stem}.u8")
        except OSError as error:
            if error.errno is None:
                raise
            raise InputError(
                f"{home}: decoded images cannot be kept there ({error.strerror}); set XDG_CACHE_HOME"
            ) from error
        mapped = np.memmap(file, np.uint8, "c", shape=(len(listing), *self.shape))
        return Images(torch.from_numpy(mapped), torch.tensor([image.label for image in listing]))


def in_folders(home: Path, part: str, num_classes: int, says: str) -> list[ImageFile]:
    """Every image of `<home>/<part>/<class>/*`, classes numbered in the order of their names; InputError, with what
    `says` so, where there are not `num_classes`."""
    home = home / part
    if not home.is_dir():
        raise InputError(f"{home}: no such folder; {part}/<class>/<images> is looked for there")
    classes = sorted(entry.name for entry in os.scandir(home) if entry.is_dir())
    if len(classes) != num_classes:
        raise InputError(f"{home}: {len(classes)} classes, and {says}")
    found = []
    for label, name in enumerate(classes):
        entries = sorted(os.scandir(home / name), key=lambda entry: entry.name)
        images = [entry for entry in entries if Path(entry.name).suffix.lower() in SUFFIXES]
        if not images:
            raise InputError(f"{home / name}: no images ({', '.join(sorted(SUFFIXES))}); a class needs some")
        for entry in images:
            facts = entry.stat()
            found.append(ImageFile(Path(entry.path), f"{name}/{entry.name}", label, facts.st_size, facts.st_mtime_ns))
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that other processes wait for."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _decode(images: Sequence[ImageFile], side: int, file: Path) -> Path:
    """The decoded images in one file, uint8 (N, 3, side, side): as it is there, or made, or gone on with."""
    note, partial = file.with_suffix(".json"), file.with_suffix(".partial")
    record = 3 * side * side
    if note.exists() and file.exists():
        size = file.stat().st_size
        if size == record * len(images) and (size > _HASHED_BYTES or _noted(note) == _sha256(file)):
            return file
    done = min(partial.stat().st_size // record, len(images)) if partial.exists() else 0
    with partial.open("ab") as out:
        out.truncate(done * record)
        for number, image in enumerate(images[done:], start=done + 1):
            out.write(square(image, side).tobytes())
            if number % _FLUSH == 0 or number == len(images):
                out.flush()
                os.fsync(out.fileno())
    note.write_text(json.dumps({"sha256": _sha256(partial), "images": len(images), "side": side}))
    os.replace(partial, file)
    return file


def _noted(note: Path) -> str | None:
    """The checksum that a note holds; None when it was cut off, as by a power failure."""
    try:
        return str(json.loads(note.read_text())["sha256"])
    except (ValueError, LookupError, TypeError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def square(file: ImageFile, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """An image's middle square as uint8 (3, side, side); CorruptError naming it when it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(file.read())) as opened:
            image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # as Pillow's readers raise them
        where = str(file.path) if str(file.path).endswith(file.name) else f"{file.path}: {file.name}"
        raise CorruptError(f"{where}: cannot be decoded ({error}); put a good copy there, or take it away") from error
    scale = side / min(image.size)
    width, height = (max(side, round(extent * scale)) for extent in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)), np.uint8).transpose(2, 0, 1)
