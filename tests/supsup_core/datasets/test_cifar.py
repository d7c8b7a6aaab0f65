"""The CIFAR readers, on small archives in the published byte format."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from supsup_core.datasets.cifar import CIFAR10, CIFAR100, Cifar
from supsup_core.errors import CorruptError, InputError
from supsup_core.tasks import BENCHMARKS

Rows = npt.NDArray[np.uint8]


def records(count: int, num_labels: int, label_bytes: int) -> Rows:
    """Returns records whose first two pixels contain the record's number, so that tests can check the order."""
    rows = np.zeros((count, label_bytes + 3072), np.uint8)
    numbers = np.arange(count)
    rows[:, label_bytes - 1] = numbers % num_labels
    if label_bytes == 2:
        rows[:, 0] = numbers % num_labels // 5
    rows[:, label_bytes], rows[:, label_bytes + 1] = numbers % 256, numbers // 256
    rows[:, -1] = 7
    return rows


def archive(folder: str, members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), 1)


def published(kind: type[Cifar]) -> tuple[str, dict[str, bytes]]:
    if kind is CIFAR10:
        train, test = records(50_000, 10, 1), records(10_000, 10, 1)
        parts = {f"data_batch_{i + 1}.bin": train[i * 10_000 : (i + 1) * 10_000].tobytes() for i in range(5)}
        return "cifar-10-batches-bin", {**parts, "test_batch.bin": test.tobytes(), "batches.meta.txt": b"airplane\n"}
    train, test = records(50_000, 100, 2), records(10_000, 100, 2)
    return "cifar-100-binary", {"train.bin": train.tobytes(), "test.bin": test.tobytes(), "fine_label_names.txt": b""}


def placed(kind: type[Cifar], content: bytes, root: Path) -> Cifar:
    """Writes the archive to the dataset's folder. Returns a dataset that expects the checksum of this archive."""
    (name,) = kind.files.md5
    (root / "cifar").mkdir()
    (root / "cifar" / name).write_bytes(content)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return type("Placed", (kind,), {"files": replace(kind.files, md5={name: found})})()


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])
def test_the_published_format_is_read_image_by_image(kind: type[Cifar], tmp_path: Path) -> None:
    dataset = placed(kind, archive(*published(kind)), tmp_path).load(tmp_path)
    for part, count in ((dataset.train, 50_000), (dataset.test, 10_000)):
        assert part.pixels.shape == (count, 3, 32, 32)
        numbers = part.pixels[:, 0, 0, 0].long() + 256 * part.pixels[:, 0, 0, 1].long()
        assert torch.equal(numbers, torch.arange(count))
        assert bool((part.pixels[:, 2, 31, 31] == 7).all())
        assert torch.equal(part.labels, torch.arange(count) % kind.num_labels)
    red = dataset.normalise(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))[0, :, 5, 5]
    torch.testing.assert_close(red, torch.tensor([(1 - 0.491) / 0.247, (1 - 0.482) / 0.243, (1 - 0.447) / 0.262]))


def truncated(members: dict[str, bytes]) -> dict[str, bytes]:
    return {**members, "train.bin": members["train.bin"][:-1]}


def swapped(members: dict[str, bytes]) -> dict[str, bytes]:
    return {**members, "train.bin": members["test.bin"], "test.bin": members["train.bin"]}


def mislabelled(members: dict[str, bytes]) -> dict[str, bytes]:
    rows = np.frombuffer(members["train.bin"], np.uint8).reshape(50_000, -1).copy()
    rows[123, 1] = 42
    return {**members, "train.bin": rows.tobytes()}


def no_such_class(members: dict[str, bytes]) -> dict[str, bytes]:
    rows = np.frombuffer(members["test.bin"], np.uint8).reshape(10_000, -1).copy()
    rows[5, 1] = 200
    return {**members, "test.bin": rows.tobytes()}


def missing(members: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in members.items() if name != "test.bin"}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, "training part has .* bytes, not 50000 records of 3074"),
        (swapped, "training part has .* bytes, not 50000 records"),
        (mislabelled, "training part has wrong labels: each of 100 classes must have 500 images"),
        (no_such_class, "test part has wrong labels"),
        (missing, "contains no file cifar-100-binary/test.bin"),
    ],
)
def test_an_archive_that_is_not_the_published_one_is_refused(
    damage: Callable[[dict[str, bytes]], dict[str, bytes]], words: str, tmp_path: Path
) -> None:
    """The archive is refused even if its checksum is the expected one."""
    folder, members = published(CIFAR100)
    reader = placed(CIFAR100, archive(folder, damage(members)), tmp_path)
    with pytest.raises(CorruptError, match=words):
        reader.load(tmp_path)


def test_other_bytes_are_refused_by_the_checksum(tmp_path: Path) -> None:
    placed(CIFAR100, archive(*published(CIFAR100)), tmp_path)
    with pytest.raises(CorruptError, match=r"cifar-100-binary\.tar\.gz: has the wrong MD5 sum .* delete the file"):
        CIFAR100().load(tmp_path)
    (tmp_path / "elsewhere" / "cifar").mkdir(parents=True)
    with pytest.raises(CorruptError, match="not a gzipped tar archive"):
        placed(CIFAR100, gzip.compress(b"no archive"), tmp_path / "elsewhere" / "cifar").load(
            tmp_path / "elsewhere" / "cifar"
        )


def test_an_archive_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cifar/cifar-10-binary\.tar\.gz: is missing; put .* into"):
        CIFAR10().load(tmp_path)


def test_photographs_can_be_permuted_and_split(tmp_path: Path) -> None:
    dataset = placed(CIFAR10, archive(*published(CIFAR10)), tmp_path).load(tmp_path)
    permuted = BENCHMARKS["permuted"](base="cifar10")
    x, _ = permuted.task(1, dataset, 0).train_batch(torch.arange(3))
    assert x.shape == (3, 3072) == (3, *permuted.input_shape)
    split = BENCHMARKS["split"](base="cifar100", num_tasks=20, labels_per_task=5)
    assert (split.num_labels, split.input_shape) == (5, (3, 32, 32))
    with pytest.raises(InputError, match="only grey images can be rotated"):
        BENCHMARKS["rotated"](base="cifar10")
