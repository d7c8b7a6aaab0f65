"""From the counts of evaluations to the metrics of a run after n tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from supsup_core import metrics
from supsup_core.scenarios import SCENARIOS


def task_accuracy(results: Mapping[str, Any], protocol: str, wrong_task_is_wrong: bool) -> float:
    """Accuracy in [0, 1] of one evaluated task."""
    counts = results[protocol]
    correct: int = counts["correct_and_right_task" if wrong_task_is_wrong else "correct"]
    return correct / int(counts["images"])


def accuracies(rows: Sequence[Mapping[str, Any]], protocol: str, scenario: str) -> list[float]:
    """Accuracies of tasks 0..n-1, as the scenario counts an answer right."""
    wrong = SCENARIOS[scenario].wrong_task_is_wrong
    return [task_accuracy(results, protocol, wrong) for results in rows]


def point_metrics(
    scenario: str, rows: Sequence[Mapping[str, Any]], earlier: Mapping[int, Sequence[Mapping[str, Any]]]
) -> dict[str, float]:
    """The metrics of one evaluation point, shares in [0, 1].

    rows: the results of tasks 0..n-1 after n tasks; earlier: the same of each earlier point.
    """
    values: dict[str, float] = {}
    for protocol, suffix in (("paper", ""), ("strict", "_strict")):
        if not all(protocol in results for results in rows):
            continue
        current = accuracies(rows, protocol, scenario)
        matrix = {n: accuracies(past, protocol, scenario) for n, past in earlier.items()}
        matrix[len(rows)] = current
        values[f"accuracy{suffix}"] = metrics.average_accuracy(current)
        values[f"forgetting{suffix}"] = metrics.forgetting(matrix, len(rows))
        if not SCENARIOS[scenario].given_at_inference:
            decisions = sum(results[protocol]["decisions"] for results in rows)
            right = sum(results[protocol]["right_task"] for results in rows)
            values[f"task_inference_accuracy{suffix}"] = right / decisions
            shared = [task_accuracy(results, protocol, False) for results in rows]
            values[f"accuracy_labels_shared{suffix}"] = metrics.average_accuracy(shared)
    return values


def confusion(rows: Sequence[Mapping[str, Any]], protocol: str = "paper") -> list[dict[str, int]]:
    """Long table of inferred tasks: task, mask, decisions; only pairs that occurred."""
    return [
        {"task": task, "mask": int(mask), "decisions": count}
        for task, results in enumerate(rows)
        for mask, count in results[protocol]["confusion"].items()
    ]
