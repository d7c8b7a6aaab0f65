"""Datasets and the task sequences made from them."""

from supsup_core.benchmarks import digits, mnist, permuted, rotated, split
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
    "digits",
    "mnist",
    "permuted",
    "rotated",
    "split",
]
