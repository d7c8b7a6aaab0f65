"""Datasets and the task sequences made from them."""

from supsup_core.benchmarks import cifar, digits, held_out, image_folder, imagenet, mnist, permuted, rotated, split
from supsup_core.benchmarks.base import (
    BASES,
    BENCHMARKS,
    AlteredTask,
    Base,
    Benchmark,
    Dataset,
    Images,
    Task,
    base_from,
    base_node,
)

__all__ = [
    "BASES",
    "BENCHMARKS",
    "AlteredTask",
    "Base",
    "Benchmark",
    "Dataset",
    "Images",
    "Task",
    "base_from",
    "base_node",
    "cifar",
    "digits",
    "held_out",
    "image_folder",
    "imagenet",
    "mnist",
    "permuted",
    "rotated",
    "split",
]
