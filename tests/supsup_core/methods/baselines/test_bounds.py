"""Upper and lower bound, and the accuracy of EWC and PSP between them."""

from __future__ import annotations

import torch

from supsup_core.datasets import Dataset
from supsup_core.methods import METHODS, Method, Problem
from supsup_core.methods.base import SHARED
from supsup_core.methods.learners import accuracy
from supsup_core.tasks import BENCHMARKS
from tests.supsup_core.methods.learning import TASKS, learned


def accuracies(method: Method, problem: Problem, digits: Dataset) -> list[float]:
    learner = method.learner(problem, learned(method, problem, digits))
    benchmark = BENCHMARKS["permuted"](base="digits")
    return [accuracy(learner, benchmark.task(index, digits, 0), index) for index in range(TASKS)]


def test_ewc_and_psp_are_between_lower_and_upper_bound(problem: Problem, digits: Dataset) -> None:
    lower, ewc, psp, upper = (
        sum(accuracies(METHODS[name](), problem, digits)) / TASKS
        for name in ("lower_bound", "ewc", "psp", "upper_bound")
    )
    assert lower + 0.02 < ewc < upper
    assert lower + 0.02 < psp < upper + 0.02  # training on earlier tasks may help or harm


def test_a_lower_bound_with_a_shared_head_answers_all_tasks_equally(problem: Problem, digits: Dataset) -> None:
    method = METHODS["lower_bound"](head="shared")
    states = learned(method, problem, digits, 2)
    learner = method.learner(problem, states)
    x = torch.rand(5, 64)
    assert torch.equal(learner.logits(x, 0), learner.logits(x, 1))
    assert all(name.startswith(SHARED) for name in states[1])
    own = learned(METHODS["lower_bound"](), problem, digits, 2)
    other = METHODS["lower_bound"]().learner(problem, own)
    assert not torch.equal(other.logits(x, 0), other.logits(x, 1))
