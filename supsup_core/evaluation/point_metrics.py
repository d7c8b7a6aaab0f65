"""From the counts of evaluations to the metrics of a run after n tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from supsup_core.evaluation import metrics
from supsup_core.scenarios import SCENARIOS

Tested = Mapping[int, Mapping[str, Any]]
"""The results of one evaluation point, by task."""


def task_accuracy(results: Mapping[str, Any], protocol: str, wrong_task_is_wrong: bool) -> float:
    """Accuracy in [0, 1] of one evaluated task."""
    counts = results[protocol]
    correct: int = counts["correct_and_right_task" if wrong_task_is_wrong else "correct"]
    return correct / int(counts["images"])


def accuracies(rows: Tested, protocol: str, scenario: str) -> dict[int, float]:
    """Accuracies of the tested tasks, as the scenario counts an answer right."""
    wrong = SCENARIOS[scenario].wrong_task_is_wrong
    return {task: task_accuracy(results, protocol, wrong) for task, results in rows.items()}


def point_metrics(scenario: str, points: Mapping[int, Tested], num_learned: int) -> dict[str, float]:
    """The metrics of one evaluation point, shares in [0, 1].

    points: the results of this point and of each earlier one, by tasks learned.
    """
    values: dict[str, float] = {}
    rows = points[num_learned]
    for protocol, suffix in (("paper", ""), ("strict", "_strict")):
        if not all(protocol in results for results in rows.values()):
            continue
        matrix = {n: accuracies(tested, protocol, scenario) for n, tested in points.items()}
        values[f"accuracy{suffix}"] = metrics.average_accuracy(list(matrix[num_learned].values()))
        if len(matrix) > 1:  # otherwise nobody has looked at what may have been forgotten
            values[f"forgetting{suffix}"] = metrics.forgetting(matrix, num_learned)
        if not SCENARIOS[scenario].given_at_inference:
            decisions = sum(results[protocol]["decisions"] for results in rows.values())
            right = sum(results[protocol]["right_task"] for results in rows.values())
            values[f"task_inference_accuracy{suffix}"] = right / decisions
            if all("recovered" in results[protocol] for results in rows.values()):
                found = sum(results[protocol]["recovered"] for results in rows.values())
                values[f"mask_recovery{suffix}"] = found / decisions
            shared = [task_accuracy(results, protocol, False) for results in rows.values()]
            values[f"accuracy_labels_shared{suffix}"] = metrics.average_accuracy(shared)
    return values


def confusion(rows: Tested, protocol: str = "paper") -> list[dict[str, int]]:
    """Long table of inferred tasks: task, mask, decisions; only pairs that occurred."""
    return [
        {"task": task, "mask": int(mask), "decisions": count}
        for task, results in rows.items()
        for mask, count in results[protocol]["confusion"].items()
    ]
