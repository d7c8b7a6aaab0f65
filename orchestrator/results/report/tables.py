"""Builds data frames of a sweep's results from the states of its training groups.

Accuracies and other shares are in [0, 1], except in `final_table` (percent) and `paired_table` (percentage points).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from orchestrator.records.group_state import GroupState
from orchestrator.sweeps.training_groups import Group, Run
from supsup_core.evaluation import point_metrics
from supsup_core.evaluation.intervals import mean_interval, wilson
from supsup_core.evaluation.metrics import AllocationTally
from supsup_core.methods.base import HasMemory
from supsup_core.scenarios import SCENARIOS

_POINT_COLUMNS = ["run", "seed", "num_learned", "metric", "value", "low", "high"]

_SHOWN = (
    ("accuracy", "accuracy %"),
    ("task_inference_accuracy", "task inference %"),
    ("mask_recovery", "recovered %"),
    ("accuracy_labels_shared", "as GNs %"),
    ("accuracy_strict", "strict %"),
    ("task_inference_accuracy_strict", "strict inference %"),
    ("forgetting", "forgetting %"),
    ("purity", "purity %"),
    ("untrained_share", "not trained %"),
)
"""The metrics in the final table that are shares, and the headings of their columns."""

_COUNTED = (("masks", "masks"), ("duplicates", "duplicates"), ("wrong_reuses", "wrong reuses"))
"""The metrics in the final table that are counts (NNs only), and the headings of their columns. The table shows the
mean of each count over seeds."""

_BYTES = (("num_bytes", "bytes per task"), ("memory_bytes", "Hopfield bytes per task"))
"""The metrics in the final table that are sizes, and the headings of their columns. Sizes are divided by the number of
tasks."""


class _RunResults(NamedTuple):
    """A run with its complete evaluation points.

    `points`: maps the number of tasks learned at each point, ascending, to the keys of the point's evaluations.
    `state`: the state of the run's training group.
    """

    run: Run
    points: Mapping[int, Sequence[str]]
    state: GroupState


def _runs(groups: Sequence[Group], states: Mapping[str, GroupState]) -> Iterator[_RunResults]:
    """Yields every run of a sweep with its results."""
    for group in groups:
        state = states.get(group.group_id, GroupState())
        for run, points in zip(group.runs, group.points, strict=True):
            complete = {n: state.points[run.run_id, n] for n in sorted(points) if (run.run_id, n) in state.points}
            yield _RunResults(run, {n: row.event.keys for n, row in complete.items()}, state)


def points_table(groups: Sequence[Group], states: Mapping[str, GroupState]) -> pd.DataFrame:
    """Returns a table with one row for each run, number of learned tasks and metric.

    `low` and `high` are the 95 % interval of a strict accuracy, which is measured on a sample of the test images. For
    other metrics, `low` and `high` are NaN.
    """
    rows: list[dict[str, Any]] = []
    for run, points, state in _runs(groups, states):
        for n, keys in points.items():
            metrics = state.points[run.run_id, n].event.metrics | _memory_metrics(run)
            for metric, value in metrics.items():
                low, high = _sampling_interval(metric, run, keys, state)
                cells = (run.label, run.experiment.seed, n, metric, value, low, high)
                rows.append(dict(zip(_POINT_COLUMNS, cells, strict=True)))
    return pd.DataFrame(rows, columns=_POINT_COLUMNS)


def _memory_metrics(run: Run) -> dict[str, float]:
    """Returns the size of the associative memory as the metric `memory_bytes`, or {} for a method without a memory.

    The platform stores the masks and builds the memory from them. The paper stores only the memory.
    """
    experiment = run.experiment
    if not isinstance(experiment.method, HasMemory):
        return {}
    layers = experiment.net.layers(experiment.benchmark.input_shape)
    return {"memory_bytes": float(experiment.method.memory_bytes(layers))}


def _sampling_interval(metric: str, run: Run, keys: Sequence[str], state: GroupState) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a strict accuracy, or (NaN, NaN) for any other metric."""
    if metric not in ("accuracy_strict", "accuracy_labels_shared_strict"):
        return math.nan, math.nan
    wrong = metric == "accuracy_strict" and SCENARIOS[run.experiment.scenario.name].wrong_task_is_wrong
    counts = [state.evaluated[key].event.facts.results["strict"] for key in keys]
    correct = sum(c.correct_and_right_task if wrong else c.correct for c in counts)
    interval = wilson(correct, sum(c.images for c in counts))
    return interval.low, interval.high


def summary_table(points: pd.DataFrame) -> pd.DataFrame:
    """Returns a table with the mean over seeds and the 95 % interval of the mean (Student's t).

    There is one row per run label, number of tasks learned and metric. With one seed, the interval is copied from the
    columns `low` and `high` of `points`: the uncertainty from a finite number of test images, or NaN. points: a table
    that `points_table` has returned.
    """
    rows = []
    for (run, n, metric), part in points.groupby(["run", "num_learned", "metric"], sort=False):
        interval = mean_interval([float(value) for value in part["value"]])
        low, high = interval.low, interval.high
        if len(part) == 1:
            low, high = float(part["low"].iloc[0]), float(part["high"].iloc[0])
        rows.append(
            {"run": run, "num_learned": n, "metric": metric, "num_seeds": len(part),
             "mean": interval.value, "low": low, "high": high}
        )  # fmt: skip
    return pd.DataFrame(rows)


def final_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Returns a table with one row per run label, at the run's last evaluation point.

    The columns hold the mean of each metric in _SHOWN or _COUNTED, and for shares half the width of the 95 % interval.
    Shares are in percent. summary: a table that `summary_table` has returned.
    """
    rows = []
    for run, part in summary.groupby("run", sort=False):
        last = part[part["num_learned"] == part["num_learned"].max()].set_index("metric")
        row: dict[str, Any] = {
            "run": run, "tasks": int(last["num_learned"].iloc[0]), "seeds": int(last["num_seeds"].iloc[0])
        }  # fmt: skip
        for metric, heading in _SHOWN:
            if metric in last.index:
                mean, low, high = (float(last.at[metric, column]) for column in ("mean", "low", "high"))
                row[heading] = round(100 * mean, 2)
                row[f"{heading} ±"] = round(50 * (high - low), 2)
        for metric, heading in _COUNTED:
            if metric in last.index:
                row[heading] = round(float(last.at[metric, "mean"]), 1)
        for metric, heading in _BYTES:
            if metric in last.index:
                row[heading] = round(float(last.at[metric, "mean"]) / row["tasks"])
        rows.append(row)
    table = pd.DataFrame(rows)
    headings = [h for _, heading in _SHOWN for h in (heading, f"{heading} ±") if h in table.columns]
    headings += [heading for _, heading in _COUNTED if heading in table.columns]
    headings += [heading for _, heading in _BYTES if heading in table.columns]
    return table[["run", "tasks", "seeds", *headings]].astype({h: "Int64" for _, h in _BYTES if h in table.columns})


_PAIRED_COLUMNS = ["run", "against", "tasks", "seeds", "difference", "low", "high"]


def paired_table(points: pd.DataFrame) -> pd.DataFrame:
    """Returns a table that compares the accuracy of every run with the accuracy of the first run, paired by seed.

    `difference` is the mean difference in percentage points; `low` and `high` are its 95 % interval (Student's t) over
    the common seeds. Both runs are compared at the largest number of tasks after which both were evaluated. A run that
    has fewer than two seeds in common with the first run has no row. points: a table that `points_table` has returned.
    """
    accuracy = points[points["metric"] == "accuracy"]
    runs = list(accuracy["run"].unique())
    rows = []
    for run in runs[1:]:
        both = [
            accuracy[accuracy["run"] == name].set_index(["num_learned", "seed"])["value"] for name in (run, runs[0])
        ]
        differences = (both[0] - both[1]).dropna()
        if differences.empty:
            continue
        last = int(max(differences.index.get_level_values("num_learned")))
        found = [100 * float(value) for value in differences.xs(last, level="num_learned")]
        if len(found) > 1:
            interval = mean_interval(found)
            cells = (run, runs[0], last, len(found), interval.value, interval.low, interval.high)
            rows.append(dict(zip(_PAIRED_COLUMNS, cells, strict=True)))
    return pd.DataFrame(rows, columns=_PAIRED_COLUMNS)


def tasks_table(groups: Sequence[Group], states: Mapping[str, GroupState]) -> pd.DataFrame:
    """Returns a table of accuracies with one row per run, seed, evaluation point and task."""
    rows = []
    for run, points, state in _runs(groups, states):
        for n, keys in points.items():
            for task, found in state.results_of(keys).items():
                row: dict[str, Any] = {"run": run.label, "seed": run.experiment.seed, "num_learned": n, "task": task}
                for protocol, suffix in (("paper", ""), ("strict", "_strict")):
                    if protocol in found:
                        wrong = run.experiment.scenario.wrong_task_is_wrong
                        row[f"accuracy{suffix}"] = found[protocol].accuracy(wrong)
                        row[f"task_inference_accuracy{suffix}"] = found[protocol].task_inference_accuracy
                rows.append(row)
    return pd.DataFrame(rows)


def confusion_table(groups: Sequence[Group], states: Mapping[str, GroupState]) -> pd.DataFrame:
    """Returns a table of how often each mask was chosen for each task, at each run's last complete evaluation point.

    Pairs of task and mask that never occurred have no row. Runs whose scenario gives the task at inference have no rows
    either.
    """
    rows = []
    for run, points, state in _runs(groups, states):
        if not points or run.experiment.scenario.given_at_inference:
            continue
        n = max(points)
        found = state.results_of(points[n])
        numbers = state.due[n].numbers if n in state.due else None
        which = {"run": run.label, "seed": run.experiment.seed, "num_learned": n}
        for pair in point_metrics.confusion(found):
            mask = pair["mask"] if numbers is None else numbers[pair["mask"]]  # NNs: from list index to mask number
            rows.append({**which, **pair, "mask": mask})
    return pd.DataFrame(rows, columns=["run", "seed", "num_learned", "task", "mask", "decisions"])


def recovery_table(groups: Sequence[Group], states: Mapping[str, GroupState]) -> pd.DataFrame:
    """Returns a table of how many units differ from the right mask after each step of HopSupSup's mask recovery.

    `distance` is the mean over the decisions of a task, at each run's last complete evaluation point. The table is
    empty if no run recovers masks.
    """
    rows = []
    for run, points, state in _runs(groups, states):
        tested = state.results_of(points[max(points)]) if points else {}
        rows += [
            {"run": run.label, "seed": run.experiment.seed, "task": task, "step": step, "distance": distance}
            for task, found in tested.items()
            for step, distance in enumerate(found["paper"].distances or ())
        ]
    return pd.DataFrame(rows, columns=["run", "seed", "task", "step", "distance"])


_DECISION_COLUMNS = [
    "run", "seed", "round", "stream", "task", "segment", "num_masks", "statistic", "threshold", "margin", "best",
    "second", "outcome", "mask", "freed", "truth", "duplicate", "wrong_reuse", "loss", "latency", "time",
]  # fmt: skip


def decisions_table(groups: Sequence[Group], states: Mapping[str, GroupState]) -> pd.DataFrame:
    """Returns a table with one row per committed decision, in scenario NNs.

    `truth` (`new` or `known`), `duplicate` and `wrong_reuse` are computed from the true task identities, which the
    learner never sees.
    """
    rows: list[dict[str, Any]] = []
    for group in groups:
        tally = AllocationTally()
        for row in states.get(group.group_id, GroupState()).decisions:
            before = tally.duplicates, tally.wrong_reuses
            event = row.event
            truth = "known" if event.task in tally.owners.values() else "new"
            tally.add(event.task, event.mask, event.freed)
            cells = {name: getattr(event, name) for name in _DECISION_COLUMNS if hasattr(event, name)}
            cells |= {"run": group.runs[0].label, "seed": group.experiment.seed, "truth": truth}
            cells |= {"duplicate": tally.duplicates > before[0], "wrong_reuse": tally.wrong_reuses > before[1]}
            cells["time"] = pd.Timestamp(row.time_ms, unit="ms", tz="UTC").isoformat(timespec="milliseconds")
            rows.append(cells)
    table = pd.DataFrame(rows, columns=_DECISION_COLUMNS)
    return table.astype(dict.fromkeys(("best", "second", "mask", "freed"), "Int64"))


def allocation_table(groups: Sequence[Group], states: Mapping[str, GroupState]) -> pd.DataFrame:
    """Returns a table with the allocation metrics of NNs runs: one row per training group and amount of training data.

    `num_learned`: the amount of training data, measured in tasks.
    """
    rows = [
        {"run": group.runs[0].label, "seed": group.experiment.seed, "num_learned": n, **row.event.metrics}
        for group in groups
        for n, row in sorted(states.get(group.group_id, GroupState()).met.items())
    ]
    return pd.DataFrame(rows)
