"""The contract of every benchmark and base, and what MNIST says of bad files."""

import gzip
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from supsup_core.datasets import BASES, Dataset, mnist
from supsup_core.datasets.base import Images
from supsup_core.errors import CorruptError, InputError
from supsup_core.tasks import BENCHMARKS, Benchmark, held_out
from supsup_core.tasks.rotated import rotation


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


def seen(benchmark: Benchmark, digits: Dataset, seeds: int) -> set[bytes]:
    return {
        benchmark.task(index, digits, seed).train_batch(torch.arange(20))[0].numpy().tobytes()
        for index in range(4)
        for seed in range(seeds)
    }


def test_tasks_differ(benchmark: Benchmark, digits: Dataset) -> None:
    assert len(seen(benchmark, digits, 1)) == 4


def test_permutations_of_different_seeds_never_coincide(digits: Dataset) -> None:
    assert len(seen(BENCHMARKS["permuted"](base="digits"), digits, 3)) == 12


def test_the_number_of_tasks_is_not_part_of_a_tasks_identity(benchmark: Benchmark) -> None:
    longer = type(benchmark)(base="digits", num_tasks=5)
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


@pytest.mark.parametrize("quarters", [0, 1, 2, 3, 4])
def test_a_quarter_turn_is_exact_and_counterclockwise(digits: Dataset, quarters: int) -> None:
    benchmark = BENCHMARKS["rotated"](base="digits", degrees=90.0, num_tasks=4)
    x, y = benchmark.task(quarters, digits, 0).test_batch(torch.arange(5))
    upright = digits.normalise(digits.test.pixels[:5])
    assert torch.equal(x, torch.rot90(upright, quarters, (1, 2)))
    assert torch.equal(y, digits.test.labels[:5])


def test_a_small_turn_takes_the_nearest_pixel_and_is_black_outside() -> None:
    source, outside = rotation((28, 28), 10.0)
    inside = ~outside
    assert 0 < int(outside.sum()) < 200
    y, x = torch.arange(784) // 28, torch.arange(784) % 28
    from_y, from_x = source // 28, source % 28
    turned = math.radians(10)
    wanted_x = math.cos(turned) * (x - 13.5) - math.sin(turned) * (y - 13.5) + 13.5
    wanted_y = math.sin(turned) * (x - 13.5) + math.cos(turned) * (y - 13.5) + 13.5
    assert float((from_x - wanted_x)[inside].abs().max()) <= 0.5001
    assert float((from_y - wanted_y)[inside].abs().max()) <= 0.5001


def test_rotations_do_not_depend_on_the_seed(digits: Dataset) -> None:
    benchmark = BENCHMARKS["rotated"](base="digits")
    first, second = (benchmark.task(3, digits, seed).train_batch(torch.arange(4))[0] for seed in (0, 1))
    assert torch.equal(first, second)
    with pytest.raises(InputError, match="every task the same"):
        BENCHMARKS["rotated"](base="digits", degrees=0.0, num_tasks=1)
    for num_tasks, degrees, most in ((37, 10.0, 36), (4, 120.0, 3), (2, 360.0, 1), (40, -10.0, 36)):
        with pytest.raises(InputError, match=f"task {most} is rotated as an earlier one is; ask for {most} tasks"):
            BENCHMARKS["rotated"](base="digits", degrees=degrees, num_tasks=num_tasks)
    BENCHMARKS["rotated"](base="digits", degrees=0.1, num_tasks=3600)


@pytest.mark.parametrize("order", ["drawn", "given"])
@pytest.mark.parametrize("labels", ["own", "base"])
def test_a_split_gives_every_image_to_one_task(digits: Dataset, order: str, labels: str) -> None:
    benchmark = BENCHMARKS["split"](base="digits", order=order, labels=labels)
    tasks = [benchmark.task(index, digits, 3) for index in range(5)]
    assert sum(task.num_train for task in tasks) == len(digits.train.labels)
    assert sum(task.num_test for task in tasks) == len(digits.test.labels)
    met: list[int] = []
    for task in tasks:
        x, y = task.all_test()
        own = sorted(set(y.tolist()))
        assert own == [0, 1] if labels == "own" else len(own) == 2
        for label in own:
            found = x[y == label].flatten(1)
            rows = [
                c for c in range(10)
                if torch.equal(digits.normalise(digits.test.pixels[digits.test.labels == c]).flatten(1), found)
            ]  # fmt: skip
            assert len(rows) == 1
            assert labels == "own" or rows == [label]
            met += rows
    assert sorted(met) == list(range(10))
    assert order == "drawn" or met == list(range(10))


def test_splits_are_drawn_from_the_seed(digits: Dataset) -> None:
    benchmark = BENCHMARKS["split"](base="digits")
    sizes = {tuple(benchmark.task(index, digits, seed).num_test for index in range(5)) for seed in range(5)}
    assert len(sizes) == 5


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"num_tasks": 6}, "enough for 5 tasks"), ({"labels_per_task": 0}, "labels_per_task: must be at least 1")],
)
def test_splits_that_cannot_be_are_refused(fields: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        BENCHMARKS["split"](base="digits", **fields)


def test_normalised_pixels_are_centred(digits: Dataset) -> None:
    x = digits.normalise(digits.train.pixels)
    assert abs(float(x.mean())) < 0.01
    assert abs(float(x.std()) - 1) < 0.01


def test_mnist_is_the_published_one(data_root: Path) -> None:
    dataset = mnist.MNIST().load(data_root)
    assert dataset.train.pixels.shape == (60000, 28, 28)
    assert dataset.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert abs(float(dataset.normalise(dataset.train.pixels[:5000]).mean())) < 0.02


def test_mnist_that_is_missing_says_which_files_go_where(tmp_path: Path) -> None:
    for read in (mnist.MNIST().load, mnist.MNIST().verify):
        with pytest.raises(InputError, match=r"mnist/train-images-idx3-ubyte\.gz: missing; put .* into"):
            read(tmp_path)


def test_without_a_root_or_a_network_it_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(mnist.MNIST, "files", replace(mnist.MNIST.files, mirrors=("http://127.0.0.1:9/",)))
    with pytest.raises(InputError, match=r"no mirror could be reached .*; put .*data=DIR or SUPSUP_DATA"):
        mnist.MNIST().load(None)
    assert not list(tmp_path.rglob("*.gz"))


def test_a_mirror_is_used_and_verified(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    mirrors = tuple(f"{folder.as_uri()}/" for folder in (tmp_path / "nowhere", data_root / "mnist"))
    monkeypatch.setattr(mnist.MNIST, "files", replace(mnist.MNIST.files, mirrors=mirrors))
    assert len(mnist.MNIST().load(None).test.labels) == 10000
    assert {path.name for path in (tmp_path / "supsup" / "mnist").iterdir()} == set(mnist.MNIST.files.md5)


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
    for read in (mnist.MNIST().load, mnist.MNIST().verify):
        with pytest.raises(CorruptError, match=r"t10k-labels-idx1-ubyte\.gz: .*delete it and run again"):
            read(tmp_path)


def test_enlarged_digits_are_the_digits(digits: Dataset) -> None:
    base = BASES["digits"](enlarge=4, channels=3)
    large = base.load(None)
    assert large.test.pixels.shape[1:] == base.shape == (3, 32, 32)
    assert torch.equal(large.test.pixels[:, 2, 3::4, ::4], digits.test.pixels)
    small, enlarged = (data.normalise(data.test.pixels[:5]) for data in (digits, large))
    torch.testing.assert_close(enlarged[:, 1, ::4, ::4], small)
    with pytest.raises(InputError, match="enlarge: must be a whole number"):
        BASES["digits"](enlarge=0)


def test_held_out_images_are_training_images_and_leave_both_parts_every_class(digits: Dataset) -> None:
    base = BASES["held_out"](of="digits", share=0.2, seed=3)
    found = base.load(None)
    assert base.shape == (8, 8)
    assert base.num_labels == 10
    rows = sorted(image.numpy().tobytes() for image in digits.train.pixels)
    parts = [part.gather(torch.arange(len(part.labels))) for part in (found.train, found.test)]
    assert sorted(image.numpy().tobytes() for pixels, _ in parts for image in pixels) == rows
    labels = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(*digits.train.gather(torch.arange(len(rows))), strict=True)
    }
    assert all(labels[image.numpy().tobytes()] == label for part in parts for image, label in zip(*part, strict=True))
    assert found.train.pixels is found.test.pixels  # nothing is copied
    assert base.resident_images == BASES["digits"]().resident_images
    assert len(found.train.labels) + len(found.test.labels) == len(digits.train.labels)
    share = found.test.labels.bincount() / digits.train.labels.bincount()
    torch.testing.assert_close(share, torch.full((10,), 0.2), atol=0.01, rtol=0)
    again, other = (BASES["held_out"](of={"name": "digits"}, share=0.2, seed=seed) for seed in (3, 4))
    assert torch.equal(again.load(None).test.places, found.test.places)
    assert not torch.equal(other.load(None).test.places, found.test.places)
    assert base == again
    assert len({base, again, other}) == len({base.checksum(), again.checksum(), other.checksum()}) == 2


def test_images_are_held_out_of_some_of_a_file_too() -> None:
    """As where a user's base shows only a part of the pixels that it has."""
    shown = Images(torch.arange(10, dtype=torch.uint8)[:, None], torch.tensor([7, 8, 9]), torch.tensor([7, 8, 9]))
    pixels, labels = held_out._part(shown, torch.tensor([True, False, True])).gather(torch.tensor([0, 1]))
    assert pixels.flatten().tolist() == labels.tolist() == [7, 9]


def test_what_cannot_be_held_out_is_named() -> None:
    with pytest.raises(InputError, match=r"base\.share: 0\.001 of the \d+ training images of class 0 is 0"):
        BASES["held_out"](of="digits", share=0.001).load(None)
    with pytest.raises(InputError, match="share: must be between 0 and 1, not 1"):
        BASES["held_out"](of="digits", share=1)
    with pytest.raises(InputError, match="of: is held_out itself"):
        BASES["held_out"](of={"name": "held_out", "of": "digits"})
