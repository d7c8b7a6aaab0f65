"""Datasets and the task sequences made from them."""

from supsup_core.benchmarks import cifar, digits, image_folder, mnist, permuted, rotated, split
from supsup_core.benchmarks.base import BASES, BENCHMARKS, AlteredTask, Base, Benchmark, Dataset, Images, Task

__all__ = [
    "BASES",
    "BENCHMARKS",
    "AlteredTask",
    "Base",
    "Benchmark",
    "Dataset",
    "Images",
    "Task",
    "cifar",
    "digits",
    "image_folder",
    "mnist",
    "permuted",
    "rotated",
    "split",
]
