"""The MNIST reader, on the published files and on damaged or missing files."""

import gzip
import shutil
from pathlib import Path

import pytest

from supsup_core.datasets import mnist
from supsup_core.errors import CorruptError, InputError


def test_mnist_is_read_as_published(data_root: Path) -> None:
    dataset = mnist.MNIST().load(data_root)
    assert dataset.train.pixels.shape == (60000, 28, 28)
    assert dataset.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert abs(float(dataset.normalise(dataset.train.pixels[:5000]).mean())) < 0.02


def test_missing_mnist_says_which_files_go_where(tmp_path: Path) -> None:
    for read in (mnist.MNIST().load, mnist.MNIST().verify):
        with pytest.raises(InputError, match=r"mnist/train-images-idx3-ubyte\.gz: is missing; put .* into"):
            read(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "changed"])
def test_damaged_mnist_is_refused_with_a_remedy(data_root: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(data_root / "mnist", tmp_path / "mnist", copy_function=shutil.copyfile)
    (tmp_path / "mnist").chmod(0o755)
    file = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    else:
        labels = bytearray(gzip.decompress(content))
        labels[100] ^= 1
        file.write_bytes(gzip.compress(bytes(labels)))
    for read in (mnist.MNIST().load, mnist.MNIST().verify):
        with pytest.raises(CorruptError, match=r"t10k-labels-idx1-ubyte\.gz: .*delete the file and run the command"):
            read(tmp_path)
