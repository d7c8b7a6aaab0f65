"""Which trials a search stops depends on the accuracies alone, and is what Ray Tune's ASHA decides in plan order."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from orchestrator.spec.successive_halving import Judged, halve

RUNGS = [1, 2, 4]
ACCURACIES = st.lists(st.lists(st.sampled_from([n / 8 for n in range(1, 8)]), min_size=3, max_size=3), max_size=9)
"""The accuracies of trials at three rungs. Quantiles of eighths are computed without rounding."""


def judged(accuracies: list[float], num_known: int = len(RUNGS), is_over: bool = False) -> Judged:
    return Judged(dict(zip(RUNGS[:num_known], accuracies, strict=False)), is_over or num_known == len(RUNGS))


def by_ray(trials: list[list[float]], rungs: list[int], reduction: int) -> list[int | None]:
    """What Ray Tune's scheduler decides if each trial runs to its end before the next one starts."""
    scheduler = ASHAScheduler(
        time_attr="tasks", metric="accuracy", mode="max", max_t=rungs[-1] + 1,
        grace_period=1, reduction_factor=reduction, stop_last_trials=False,
    )  # fmt: skip
    stops: list[int | None] = []
    for number, accuracies in enumerate(trials):
        trial = SimpleNamespace(trial_id=str(number))
        scheduler.on_trial_add(None, trial)
        stop = None
        for rung, accuracy in zip(rungs, accuracies, strict=True):
            result = {"tasks": rung, "accuracy": accuracy}
            if stop is None and scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
                stop = rung
        stops.append(stop)
    return stops


@pytest.mark.parametrize("reduction", [2, 4])  # with 3, Ray rounds quantiles
@given(trials=ACCURACIES)
def test_it_decides_as_asha_of_ray_tune_does_in_the_order_of_the_plan(
    reduction: int, trials: list[list[float]]
) -> None:
    rungs = [reduction**power for power in range(3)]
    found = halve([Judged(dict(zip(rungs, one, strict=True)), True) for one in trials], rungs, reduction)
    assert found == by_ray(trials, rungs, reduction)


@given(data=st.data(), trials=ACCURACIES, reduction=st.integers(2, 4))
def test_the_order_in_which_accuracies_become_known_does_not_matter(
    data: st.DataObject, trials: list[list[float]], reduction: int
) -> None:
    final = halve([judged(one) for one in trials], RUNGS, reduction)
    known = data.draw(st.lists(st.integers(0, len(RUNGS)), min_size=len(trials), max_size=len(trials)))
    early = halve([judged(one, num) for one, num in zip(trials, known, strict=True)], RUNGS, reduction)
    assert all(before in (None, after) for before, after in zip(early, final, strict=True))
    untrained = [
        Judged({rung: one.accuracies[rung] for rung in RUNGS if rung <= (stop or RUNGS[-1])}, True)
        for one, stop in zip(map(judged, trials), final, strict=True)
    ]
    assert halve(untrained, RUNGS, reduction) == final


def test_trials_that_ended_without_an_accuracy_are_passed_over() -> None:
    bad, good = [0.1, 0.1, 0.1], [0.9, 0.9, 0.9]
    assert halve([judged(good, 0), judged(bad)], RUNGS, 2) == [None, None]  # the first trial still runs
    assert halve([judged(good, 0, is_over=True), judged(bad)], RUNGS, 2) == [None, None]  # it diverged
    assert halve([judged(good, 1, is_over=True), judged(bad)], RUNGS, 2) == [None, 1]
    assert halve([judged(bad), judged(good, 1, is_over=True), judged(bad)], RUNGS, 2) == [None, None, 1]


@pytest.mark.parametrize("reduction", [2, 3, 4])
def test_the_first_trial_is_never_stopped_and_equals_are_kept(reduction: int) -> None:
    assert halve([judged([0.1] * 3)] * 5, RUNGS, reduction) == [None] * 5
    falling = [judged([value / 10] * 3) for value in range(9, 0, -1)]
    assert halve(falling, RUNGS, reduction) == [None] + [1] * 8
