"""ImageNet (ILSVRC 2012), from folders or from the published tar files."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from supsup_core.datasets.base import BASES
from supsup_core.datasets.image_decoding import ImageFile
from supsup_core.datasets.image_files import MOST_SIDE, ImageFiles, in_folders
from supsup_core.errors import CorruptError, InputError
from supsup_core.field_limits import limited
from supsup_core.input_files import open_file, read_file

_MOST_DEVKIT_BYTES = 10_000_000
"""The largest size of the devkit, in bytes. The published devkit has 2.6 MB."""


@final
@BASES.register("imagenet")
@dataclass(frozen=True, kw_only=True)
class ImageNet(ImageFiles):
    """The 1000 classes of ILSVRC 2012, numbered in the order of their WordNet ids.

    `<root>/<folder>` holds `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`, or the published `ILSVRC2012_img_train.tar`,
    `ILSVRC2012_img_val.tar` and `ILSVRC2012_devkit_t12.tar.gz`, which are not unpacked. The total number of training
    images, and the number of validation images in every class, must be the published numbers. The devkit must have the
    published MD5, so that no unknown MATLAB file (its table of classes) is parsed.
    """

    devkit_md5: ClassVar[str] = "fa75699e90414af021442c21a62c3abf"

    parts: ClassVar[tuple[str, str]] = ("train", "val")
    num_labels: ClassVar[int] = 1000
    train_counts: ClassVar[tuple[int, int]] = (732, 1300)
    """The smallest and the largest number of training images in a class."""
    num_train: ClassVar[int] = 1_281_167
    val_count: ClassVar[int] = 50
    """The number of validation images in every class."""

    folder: str = "imagenet"
    side: int = limited(256, least=1, most=MOST_SIDE)

    def listing(self, home: Path) -> tuple[list[ImageFile], list[ImageFile]]:
        train_tar, val_tar, devkit = (
            home / f"ILSVRC2012_{name}" for name in ("img_train.tar", "img_val.tar", "devkit_t12.tar.gz")
        )
        if (home / "train").is_dir():
            says = f"ImageNet has {self.num_labels}; download ImageNet again, or use base image_folder"
            train, val = (in_folders(home, part, self.num_labels, says) for part in self.parts)
        elif train_tar.is_file():
            for path in (val_tar, devkit):
                if not path.is_file():
                    raise InputError(f"{path}: is missing; put it beside {train_tar.name}")
            train = list(_train_images(train_tar))
            wnids = sorted({image.name.partition("/")[0] for image in train})
            if hashlib.md5(read_file(devkit, _MOST_DEVKIT_BYTES), usedforsecurity=False).hexdigest() != self.devkit_md5:
                raise CorruptError(f"{devkit}: is not the published devkit (its MD5 differs); download it again")
            val = list(_val_images(val_tar, _val_wnids(devkit), wnids))
        else:
            raise InputError(
                f"{home}: contains neither train/<wnid>/*.JPEG nor {train_tar.name}; put one of the two there, "
                "or set benchmark.base.folder to the folder that contains ImageNet"
            )
        self._check(home, train, val)
        return train, val

    def _check(self, home: Path, train: Sequence[ImageFile], val: Sequence[ImageFile]) -> None:
        """Raise InputError if a number of classes or images is not possible in the published dataset."""
        remedy = "the copy is incomplete; download ImageNet again, or use base image_folder for a part of ImageNet"
        fewest, most = self.train_counts
        for part, images, low, high in (("train", train, fewest, most), ("val", val, self.val_count, self.val_count)):
            counts = Counter(image.name.partition("/")[0] for image in images)
            if len(counts) != self.num_labels:
                raise InputError(
                    f"{home}: there are {len(counts)} classes in {part}, but ImageNet has {self.num_labels}; {remedy}"
                )
            wnid, count = min(counts.items(), key=lambda item: (low <= item[1] <= high, item[0]))
            if not low <= count <= high:
                wanted = str(low) if low == high else f"{low} to {high}"
                raise InputError(
                    f"{home}: there are {count} images of class {wnid} in {part}, but ImageNet has {wanted}; {remedy}"
                )
        if len(train) != self.num_train:
            raise InputError(
                f"{home}: there are {len(train)} images in train, but ImageNet has {self.num_train}; {remedy}"
            )


def _members(path: Path, start: int = 0) -> Iterator[tarfile.TarInfo]:
    """Yields the files of the tar archive that begins at byte `start` of the file `path`.

    The offset of each yielded file counts from the start of `path`. Raises CorruptError if the archive is incomplete.
    """
    try:
        with open_file(path) as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                yield from (member for member in archive if member.isfile())
    except (tarfile.TarError, EOFError) as error:
        raise CorruptError(f"{path}: is not a complete tar archive ({error}); download it again") from error


def _train_images(path: Path) -> Iterator[ImageFile]:
    """Yields the images of the training archive, which contains an archive `<wnid>.tar` for each class."""
    facts = path.stat()
    classes = sorted(_members(path), key=lambda member: member.name)
    for label, inner in enumerate(classes):
        wnid = inner.name.removesuffix(".tar")
        images = sorted(_members(path, inner.offset_data), key=lambda member: member.name)
        for image in images:
            name = f"{wnid}/{Path(image.name).name}"
            yield ImageFile(path, name, label, image.size, facts.st_mtime_ns, image.offset_data, facts.st_ino)


def _val_images(path: Path, wnid_of: Sequence[str], wnids: Sequence[str]) -> Iterator[ImageFile]:
    """Yields the images of the validation archive, in the order of their labels.

    wnid_of: the WordNet id of each image, in the order of the file names. wnids: the WordNet id of each label.
    """
    facts = path.stat()
    members = sorted(_members(path), key=lambda member: member.name)
    if len(members) != len(wnid_of):
        raise InputError(
            f"{path}: has {len(members)} images, but the devkit has labels for {len(wnid_of)}; download both again"
        )
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    found = []
    for member, wnid in zip(members, wnid_of, strict=True):
        if wnid not in label_of:
            raise InputError(f"{path}: class {wnid} has no training image; download the training archive again")
        name = f"{wnid}/{Path(member.name).name}"
        label = label_of[wnid]
        found.append(ImageFile(path, name, label, member.size, facts.st_mtime_ns, member.offset_data, facts.st_ino))
    return iter(sorted(found, key=lambda image: (image.label, image.name)))


def _val_wnids(devkit: Path) -> list[str]:
    """The WordNet id of each validation image, in the order of the file names.

    The ids are read from the ground truth and the table of classes in the devkit.
    """

    from scipy.io import loadmat  # the import takes 0.2 s, and only the tar files need it

    def content(archive: tarfile.TarFile, name: str) -> io.BytesIO:
        file = archive.extractfile(f"ILSVRC2012_devkit_t12/data/{name}")
        if file is None:
            raise KeyError(name)
        return io.BytesIO(file.read())

    try:
        with tarfile.open(devkit, "r:gz") as archive:
            truth = content(archive, "ILSVRC2012_validation_ground_truth.txt").getvalue()
            synsets: Any = loadmat(content(archive, "meta.mat"), squeeze_me=True)["synsets"]
        wnid_of = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        return [wnid_of[int(number)] for number in truth.split()]
    except (tarfile.TarError, OSError, EOFError, LookupError, TypeError, ValueError) as error:
        raise CorruptError(f"{devkit}: is not the published devkit ({error}); download it again") from error
