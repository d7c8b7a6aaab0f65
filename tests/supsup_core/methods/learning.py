"""Functions that train methods on permutations of the digits."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from supsup_core.datasets import Dataset
from supsup_core.methods import Method, Problem
from supsup_core.tasks import BENCHMARKS

TASKS = 4


def learned(method: Method, problem: Problem, digits: Dataset, count: int = TASKS) -> list[Mapping[str, Tensor]]:
    benchmark = BENCHMARKS["permuted"](base="digits")
    states: list[Mapping[str, Tensor]] = []
    for index in range(count):
        parents = [states[parent] for parent in method.dependence.parents(index)]
        states.append(method.learn(problem, index, benchmark.task(index, digits, 0), parents).state)
    return states
