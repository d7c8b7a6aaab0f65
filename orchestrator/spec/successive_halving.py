"""Selects the trials of a search to be stopped early, by the rule of ASHA applied in the order of the plan.

Source of the rule: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", in the variant of Ray Tune,
which stops trials and never continues a stopped one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Judged:
    """What is known of a trial. `accuracies`: the accuracies in [0, 1] by number of tasks learned. `is_over`: whether
    the trial will have no further accuracies, because it is done, stopped, failed or diverged."""

    accuracies: Mapping[int, float]
    is_over: bool


def halve(trials: Sequence[Judged], rungs: Sequence[int], reduction: int) -> list[int | None]:
    """Returns, for each trial, the number of tasks after which the trial is to be stopped.

    Returns None for a trial that is not to be stopped, and for a trial that cannot be judged yet.

    trials: the trials in the order of the plan. rungs: the numbers of tasks after which trials are compared, ascending.
    A trial is stopped at a rung if its accuracy is below the (1 - 1/reduction) quantile of the accuracies that the
    trials before it in the plan have at this rung. The quantile is interpolated linearly. The first trial at a rung is
    never stopped there.

    A trial is judged only by trials before it, and only when they are all judged. The result for complete trials
    therefore depends on their accuracies alone, and not on the order in which the accuracies became known. Further
    accuracies never change the result for a trial that is not None.
    """
    stops: list[int | None] = [None] * len(trials)
    num_known = len(trials)  # the trials from this number on cannot be judged yet
    for rung in rungs:
        at_rung: list[float] = []
        for number, trial in enumerate(trials[:num_known]):
            if stops[number] is not None:
                continue
            accuracy = trial.accuracies.get(rung)
            if accuracy is not None:
                if at_rung and accuracy < np.percentile(at_rung, (1 - 1 / reduction) * 100):
                    stops[number] = rung
                at_rung.append(accuracy)
            elif not trial.is_over:
                num_known = number
                break
    return stops
