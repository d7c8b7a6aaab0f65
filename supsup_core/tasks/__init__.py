"""Benchmarks: sequences of tasks made from a dataset."""

from supsup_core import datasets
from supsup_core.tasks import held_out, permuted, rotated, split
from supsup_core.tasks.base import (
    BENCHMARKS,
    AlteredTask,
    Augments,
    Benchmark,
    KnowsLabels,
    Relabels,
    ReshapesImages,
    Task,
    TrainingPart,
)

__all__ = [
    "BENCHMARKS", "AlteredTask", "Augments", "Benchmark", "KnowsLabels", "Relabels", "ReshapesImages", "Task",
    "TrainingPart",
    "datasets", "held_out", "permuted", "rotated", "split",
]  # fmt: skip
