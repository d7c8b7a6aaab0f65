"""The contract of every benchmark and base, and what MNIST says of bad files."""

import gzip
import shutil
from pathlib import Path

import pytest
import torch

from supsup_core.benchmarks import BASES, BENCHMARKS, Benchmark, Dataset, mnist
from supsup_core.errors import CorruptError, InputError


@pytest.fixture(params=BENCHMARKS.names())
def benchmark(request: pytest.FixtureRequest) -> Benchmark:
    """Every registered benchmark over the digits."""
    return BENCHMARKS[request.param](base="digits", num_tasks=4)


def test_tasks_are_pure_and_of_the_announced_shape(benchmark: Benchmark, digits: Dataset) -> None:
    indices = torch.tensor([5, 0, 7])
    task, again = benchmark.task(1, digits, 9), benchmark.task(1, digits, 9)
    for batch in ("train_batch", "test_batch"):
        x, y = getattr(task, batch)(indices)
        assert x.shape == (3, *benchmark.input_shape)
        assert x.dtype == torch.float32
        assert int(y.max()) < benchmark.num_labels
        assert torch.equal(x, getattr(again, batch)(indices)[0])
    assert len(task.all_test()[1]) == task.num_test


def test_tasks_and_seeds_differ(benchmark: Benchmark, digits: Dataset) -> None:
    indices = torch.arange(20)
    seen = {
        benchmark.task(index, digits, seed).train_batch(indices)[0].numpy().tobytes()
        for index in range(4)
        for seed in range(3)
    }
    assert len(seen) == 12


def test_the_number_of_tasks_is_not_part_of_a_tasks_identity(benchmark: Benchmark) -> None:
    longer = type(benchmark)(base="digits", num_tasks=400)
    assert longer.identity() == benchmark.identity()


def test_no_tasks_is_refused() -> None:
    with pytest.raises(InputError, match="num_tasks: must be at least 1"):
        BENCHMARKS["permuted"](num_tasks=0)


def test_a_permutation_keeps_the_pixels_and_the_labels(digits: Dataset) -> None:
    first, second = (BENCHMARKS["permuted"](base="digits").task(i, digits, 0) for i in range(2))
    (x, y), (z, w) = first.all_test(), second.all_test()
    assert torch.equal(x.sort(1).values, z.sort(1).values)
    assert not torch.equal(x, z)
    assert torch.equal(y, w)


def test_normalised_pixels_are_centred(digits: Dataset) -> None:
    x = digits.normalise(digits.train.pixels)
    assert abs(float(x.mean())) < 0.01
    assert abs(float(x.std()) - 1) < 0.01


def test_mnist_is_the_published_one(data_root: Path) -> None:
    dataset = BASES["mnist"].load(data_root)
    assert dataset.train.pixels.shape == (60000, 28, 28)
    assert dataset.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert abs(float(dataset.normalise(dataset.train.pixels[:5000]).mean())) < 0.02


def test_mnist_that_is_missing_says_which_files_go_where(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mnist/train-images-idx3-ubyte\.gz: missing; put .* into"):
        BASES["mnist"].load(tmp_path)


def test_without_a_root_or_a_network_it_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(mnist, "MIRRORS", ("http://127.0.0.1:9/",))
    with pytest.raises(InputError, match=r"no mirror could be reached .*; put .*data=DIR or SUPSUP_DATA"):
        BASES["mnist"].load(None)
    assert not list(tmp_path.rglob("*.gz"))


def test_a_mirror_is_used_and_verified(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(mnist, "MIRRORS", ((tmp_path / "nowhere").as_uri() + "/", (data_root / "mnist").as_uri() + "/"))
    assert len(BASES["mnist"].load(None).test.labels) == 10000
    assert sorted(path.name for path in (tmp_path / "supsup" / "mnist").iterdir()) == sorted(
        f"{name}.gz" for name in mnist.MD5
    )


@pytest.mark.parametrize("damage", ["truncated", "changed"])
def test_bad_mnist_is_named_with_a_remedy(data_root: Path, tmp_path: Path, damage: str) -> None:
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
    with pytest.raises(CorruptError, match=r"t10k-labels-idx1-ubyte\.gz: .*delete it and run again"):
        BASES["mnist"].load(tmp_path)
