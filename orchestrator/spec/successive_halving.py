"""Selects the trials of a search to be stopped early, by the rule of ASHA applied in the order of the plan.

Source of the rule: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", in the variant of Ray Tune,
which stops trials and never continues a stopped one.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Judged:
    """What is known of a trial.

    `accuracies`: the accuracies in [0, 1] by number of tasks learned. `is_over`: whether the trial is done, stopped or
    diverged, so that it will have no further accuracies. A failed trial is not over, because it can be resumed.
    """

    accuracies: Mapping[int, float]
    is_over: bool


def halve(trials: Sequence[Judged], rungs: Sequence[int], reduction: int) -> list[int | None]:
    """Returns, for each trial, the number of tasks after which the trial is to be stopped.

    Returns None for a trial that is not to be stopped, and for a trial that cannot be judged yet.

    trials: the trials in the order of the plan. rungs: the numbers of tasks after which trials are compared, ascending.
    A trial is stopped at a rung if its accuracy is below the quantile 1 - 1/reduction of the accuracies that the trials
    before it in the plan have at this rung. The quantile is interpolated linearly. The first trial at a rung is never
    stopped there. A trial that is over without an accuracy at a rung is left out.

    A trial is judged at a rung only after all trials before it have been judged there. The result for trials that are
    over therefore depends on their accuracies alone, and not on the order in which the accuracies became known. As long
    as no trial that is over gets another accuracy, more accuracies never change a result that is not None.
    """
    stops: list[int | None] = [None] * len(trials)
    num_known = len(trials)  # the trials from this number on cannot be judged yet
    for rung in rungs:
        at_rung: list[float] = []  # ascending
        for number, trial in enumerate(trials[:num_known]):
            if stops[number] is not None:
                continue
            accuracy = trial.accuracies.get(rung)
            if accuracy is not None:
                if at_rung and accuracy < _quantile(at_rung, reduction):
                    stops[number] = rung
                insort(at_rung, accuracy)
            elif not trial.is_over:
                num_known = number
                break
    return stops


def _quantile(ascending: Sequence[float], reduction: int) -> float:
    """Returns the quantile 1 - 1/reduction of sorted numbers, interpolated linearly."""
    place, rest = divmod((len(ascending) - 1) * (reduction - 1), reduction)
    low, high = ascending[place], ascending[min(place + 1, len(ascending) - 1)]
    return low + (high - low) * (rest / reduction)
