"""Computes the metrics of an evaluation point from the counts of its tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from supsup_core.evaluation import metrics
from supsup_core.evaluation.counts import ProtocolCounts
from supsup_core.scenarios import SCENARIOS

PointCounts: TypeAlias = Mapping[int, Mapping[str, ProtocolCounts]]
"""The counts of one evaluation point: counts[task][protocol]."""


def accuracies(counts: PointCounts, protocol: str, scenario: str) -> dict[int, float]:
    """The accuracy of each evaluated task, in [0, 1]. The scenario says which answers count as correct."""
    wrong = SCENARIOS[scenario].wrong_task_is_wrong
    return {task: by_protocol[protocol].accuracy(wrong) for task, by_protocol in counts.items()}


def point_metrics(scenario: str, tasks: PointCounts, when_learned: PointCounts) -> dict[str, float]:
    """Computes the metrics of an evaluation point, by name. Shares are in [0, 1].

    tasks: the counts of the tasks learned so far. when_learned: the counts of each task directly after it was learned,
    for all of `tasks` but the last; {} in scenario NNs, in which the learner does not know when a task ends. Without
    `when_learned`, there are no metrics of backward transfer and forgetting.
    """
    values: dict[str, float] = {}
    for protocol, suffix in (("paper", ""), ("strict", "_strict")):
        if not all(protocol in counts for counts in tasks.values()):
            continue
        now = accuracies(tasks, protocol, scenario)
        values[f"accuracy{suffix}"] = metrics.average_accuracy(list(now.values()))
        if when_learned:
            before = accuracies(when_learned, protocol, scenario)
            change = metrics.backward_transfer(list(before.values()), [now[task] for task in before])
            values[f"backward_transfer{suffix}"] = change
            values[f"forgetting{suffix}"] = 0.0 - change  # not -change, which may be -0.0
        if not SCENARIOS[scenario].given_at_inference:
            inferred = _inference_metrics([counts[protocol] for counts in tasks.values()])
            values |= {f"{name}{suffix}": value for name, value in inferred.items()}
    return values


def _inference_metrics(tasks: list[ProtocolCounts]) -> dict[str, float]:
    """The metrics of task inference over all evaluated tasks, by name."""
    decisions = sum(counts.decisions for counts in tasks)
    values = {"task_inference_accuracy": sum(counts.right_task for counts in tasks) / decisions}
    recovered = [counts.recovered for counts in tasks if counts.recovered is not None]
    if len(recovered) == len(tasks):
        values["mask_recovery"] = sum(recovered) / decisions
    values["accuracy_labels_shared"] = metrics.average_accuracy([counts.accuracy(False) for counts in tasks])
    return values


def confusion(counts: PointCounts, protocol: str = "paper") -> list[dict[str, int]]:
    """The confusion matrix of tasks and chosen masks, as one row for each (task, mask) pair that occurred.

    `decisions`: the number of inferences on images of the task that chose the mask.
    """
    return [
        {"task": task, "mask": int(mask), "decisions": count}
        for task, by_protocol in counts.items()
        for mask, count in by_protocol[protocol].confusion.items()
    ]
