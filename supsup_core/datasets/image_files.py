"""Reads compressed image files. Decodes the images once into a cache file, which all processes memory-map."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import PIL
import torch

from supsup_core.datasets.base import Base, Dataset, Images, ReadsFiles
from supsup_core.datasets.download import user_cache
from supsup_core.datasets.image_decoding import DECODER_VERSION, ImageFile, decode_square
from supsup_core.errors import CorruptError, InputError
from supsup_core.field_limits import check_limits
from supsup_core.registry import ChecksFields

log = logging.getLogger("supsup")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
"""The accepted suffixes of images."""

MOST_SIDE = 2048
"""The largest side of a decoded image, in pixels. The cache needs 3 · side² bytes for each image."""

_CONTENTS = "contents-"
"""The beginning of a `checksum_of_files` that covers the files' contents. Earlier versions of this program hashed only
the names and sizes of the files."""

_FLUSH = 512
"""The number of images decoded between two calls of fsync."""

_HASHED_BYTES = 1 << 30
"""Cache files up to this size, in bytes, are hashed each time they are loaded. For larger files only the size is
checked."""


@dataclass(frozen=True, kw_only=True)
class ImageFiles(Base, ReadsFiles):
    """An abstract base dataset of compressed images in `<root>/<folder>`. A subclass lists the files.

    Each image is decoded to RGB, resized so that its short side is `side`, and cropped to the square in its centre.
    `mean`, `std`: the mean and standard deviation of each channel. `checksum_of_files`: a hash of the names, labels
    and contents of the files, which is filled in when a sweep is planned (`with_files`). If the files change later,
    `load` raises CorruptError.
    """

    resident_images: ClassVar[int] = 0  # images are memory-mapped, so the system can evict them
    folder: str
    side: int
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    checksum_of_files: str | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # a config file gives lists, not tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != 3:
                raise InputError(f"{name}: must be three numbers, for red, green and blue")
        for name, least in (("mean", -math.inf), ("std", 0.0)):
            for value in getattr(self, name):
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                if not (number and math.isfinite(value) and value > least):
                    raise InputError(f"{name}: must be finite numbers{' above 0' if least == 0 else ''}, not {value!r}")
        if not isinstance(self.side, int):
            raise InputError(f"side: must be a whole number, not {self.side!r}")
        check_limits(self)
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
        """The images of the training part and of the test part below `home`.

        The order of the images determines their indices. Raises InputError if files are missing or contradict the
        config.
        """

    def _listing(self, root: Path | None) -> tuple[list[ImageFile], list[ImageFile]]:
        if root is None:
            raise InputError(
                f"{self.folder}: is relative to the folder of datasets, which is not set; set data=DIR or SUPSUP_DATA"
            )
        return self.listing(root / self.folder)

    def with_files(self, root: Path | None) -> Self:
        return replace(self, checksum_of_files=self._checksum_of(self._listing(root)))

    def _checksum_of(self, listings: Sequence[Sequence[ImageFile]]) -> str:
        """Returns a hash of the names, labels and contents of all images, and of the decoder's version.

        Contents are read only if a file's size, modification time or inode changed since they were last read.
        """
        cache = user_cache() / "manifests" / f"{self._hash_of(listings, _stamp)}.txt"
        if (known := _read_manifest(cache)) is not None:
            return known
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            with _locked(cache.with_suffix(".lock")):  # one process of a machine reads the contents, the others wait
                if (known := _read_manifest(cache)) is None:
                    known = f"{_CONTENTS}{self._hash_of(listings, _content)}"
                    partial = cache.with_suffix(".partial")
                    partial.write_text(known)
                    os.replace(partial, cache)
                return known
        except OSError as error:
            if error.filename is None or not Path(error.filename).is_relative_to(cache.parent.parent):
                raise  # an image cannot be read
            return f"{_CONTENTS}{self._hash_of(listings, _content)}"

    def _hash_of(self, listings: Sequence[Sequence[ImageFile]], describe: Callable[[ImageFile], str]) -> str:
        """Returns a hash of the names and labels of all images, and of what `describe` returns for each image."""
        found = hashlib.sha256()
        for part, listing in zip(self.parts, listings, strict=True):
            for image in listing:
                line = f"{part}/{image.name} {image.label} {describe(image)}\n"
                found.update(line.encode("utf-8", "surrogateescape"))
        return found.hexdigest()

    def checksum(self) -> str:
        if self.checksum_of_files is None:
            raise InputError("base: checksum_of_files is not known yet; call resolved(root) first")
        return self.checksum_of_files

    def load(self, root: Path | None) -> Dataset:
        listings = self._listing(root)
        if self.checksum().startswith(_CONTENTS):
            found = self._checksum_of(listings)
        else:
            found = self._hash_of(listings, lambda image: str(image.size))
            log.warning(
                "%s: an earlier version of supsup planned this sweep, so the sweep identifies the images by their "
                "names and sizes only. If an image changes but keeps its size, the sweep does not notice the change",
                self.folder,
            )
        if found != self.checksum():
            raise CorruptError(
                f"{self.folder}: its files have changed since the sweep was first planned; "
                "restore them, or give the sweep another name"
            )
        parts = [self._load_part(listing, part) for listing, part in zip(listings, self.parts, strict=True)]
        return Dataset(train=parts[0], test=parts[1], mean=self.mean, std=self.std)

    def _load_part(self, listing: Sequence[ImageFile], part: str) -> Images:
        times = hashlib.sha256(repr([image.changed for image in listing]).encode()).hexdigest()[:8]
        source = self.checksum().removeprefix(_CONTENTS)
        home = user_cache() / "images" / f"{source[:16]}-{self.side}-{DECODER_VERSION}-{PIL.__version__}"
        stem = f"{part.replace('/', '_')}-{times}"
        try:
            home.mkdir(parents=True, exist_ok=True)
            with _locked(home / f"{stem}.lock"):
                file = _decode(listing, self.side, home / f"{stem}.u8")
        except OSError as error:
            if error.errno is None:
                raise
            raise InputError(
                f"{home}: the decoded images cannot be stored in this folder ({error.strerror}); set XDG_CACHE_HOME to "
                "another folder"
            ) from error
        mapped = np.memmap(file, np.uint8, "c", shape=(len(listing), *self.shape))
        return Images(torch.from_numpy(mapped), torch.tensor([image.label for image in listing]))


def _read_manifest(cache: Path) -> str | None:
    """Returns the hash of contents in a cache file, or None if the file is missing or damaged."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        known = cache.read_text()
        if re.fullmatch(f"{_CONTENTS}[0-9a-f]{{64}}", known):
            return known
    return None


def _stamp(image: ImageFile) -> str:
    """Returns a text that changes if an image's file may have changed."""
    return f"{image.path} {image.offset} {image.size} {image.changed} {image.inode} {DECODER_VERSION}"


def _content(image: ImageFile) -> str:
    """Returns the SHA-256 of an image's compressed bytes, and the version of the decoder."""
    return f"{hashlib.sha256(image.read()).hexdigest()} {DECODER_VERSION}"


def in_folders(home: Path, part: str, num_classes: int, says: str) -> list[ImageFile]:
    """Returns the images of `<home>/<part>/<class>/*`. Classes are numbered in the order of their names.

    Raises InputError if the folder does not exist, if there are not `num_classes` classes, or if a class has no image.
    says: the end of the error message about a wrong number of classes.
    """
    home = home / part
    if not home.is_dir():
        raise InputError(f"{home}: this folder does not exist; put the images of each class into {part}/<class>/")
    classes = sorted(entry.name for entry in os.scandir(home) if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) != num_classes:
        raise InputError(f"{home}: the folder has {len(classes)} classes, but {says}")
    found = []
    for label, name in enumerate(classes):
        entries = sorted(os.scandir(home / name), key=lambda entry: entry.name)
        visible = [entry for entry in entries if not entry.name.startswith(".")]
        images = [entry for entry in visible if Path(entry.name).suffix.lower() in SUFFIXES]
        if not images:
            raise InputError(
                f"{home / name}: the folder has no images ({', '.join(sorted(SUFFIXES))}); every class needs at least "
                "one"
            )
        for entry in images:
            if not entry.is_file():
                raise InputError(f"{entry.path}: is not a file, or is a link to a missing file; restore or remove it")
            facts = entry.stat()
            path, shown = Path(entry.path), f"{name}/{entry.name}"
            found.append(ImageFile(path, shown, label, facts.st_size, facts.st_mtime_ns, inode=facts.st_ino))
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file (flock) during the `with` block. Other processes wait for the lock."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _decode(images: Sequence[ImageFile], side: int, file: Path) -> Path:
    """Decode images into the cache file `file`, uint8 (N, 3, side, side), and return its path.

    An intact cache file is reused. An interrupted build resumes after the last image that was written.
    """
    description, partial = file.with_suffix(".json"), file.with_suffix(".partial")
    record = 3 * side * side
    if description.exists() and file.exists():
        size = file.stat().st_size
        if size == record * len(images) and (size > _HASHED_BYTES or _read_checksum(description) == _sha256(file)):
            return file
    done = min(partial.stat().st_size // record, len(images)) if partial.exists() else 0
    with partial.open("ab") as out:
        out.truncate(done * record)
        for number, image in enumerate(images[done:], start=done + 1):
            out.write(decode_square(image, side).tobytes())
            if number % _FLUSH == 0 or number == len(images):
                out.flush()
                os.fsync(out.fileno())
    description.write_text(json.dumps({"sha256": _sha256(partial), "images": len(images), "side": side}))
    os.replace(partial, file)
    return file


def _read_checksum(description: Path) -> str | None:
    """The SHA-256 in the JSON file beside a cache file; None if the JSON is invalid, for example after a power
    failure."""
    try:
        return str(json.loads(description.read_text())["sha256"])
    except (ValueError, LookupError, TypeError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
