"""The tables of a report, from the states of training groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.records.facts import EvaluatedFacts
from orchestrator.records.group_state import GroupState
from orchestrator.records.rows import EvaluationDue, PointCompleted, Row, SegmentDecided, TaskEvaluated, TasksMet
from orchestrator.results.report import tables
from orchestrator.sweeps.sweep import open_sweep
from orchestrator.sweeps.training_groups import Group
from supsup_core.evaluation.counts import ProtocolCounts
from supsup_core.evaluation.intervals import wilson

Plan = list[Group]
States = dict[str, GroupState]


def counts(correct: int, right_task: int, confusion: dict[str, int], images: int = 100) -> ProtocolCounts:
    return ProtocolCounts(images, correct, correct - 5, 10, right_task, confusion)


def evaluated(key: str, task: int, **results: ProtocolCounts) -> TaskEvaluated:
    return TaskEvaluated(key, EvaluatedFacts(task, 1000, results), "")


@pytest.fixture
def measured(sweep_file: Callable[..., Path]) -> tuple[Plan, States]:
    """A plan in GG and GNu with two tasks and seeds 0 and 1, and its states; seed 1 has no evaluation yet."""
    file = sweep_file(
        grid={"scenario": ["GG", "GNu"]}, seeds=[0, 1], evaluation={"at": [2]},
        benchmark={"name": "permuted", "base": "digits", "num_tasks": 2},
    )  # fmt: skip
    groups = open_sweep(file, []).plan()
    rows = []
    for run, points in zip(groups[0].runs, groups[0].points, strict=True):
        for task, key in enumerate(points[2]):
            paper = counts(80 + 10 * task, 9, {"0": 9, "1": 1} if task == 0 else {"1": 10})
            strict = {} if run.label == "GG" else {"strict": counts(15, 18, {"0": 20}, images=20)}
            rows.append(evaluated(key, task, paper=paper, **strict))
        metrics = {"accuracy": 0.85, "num_bytes": 2000.0}
        if run.label != "GG":
            metrics["accuracy_strict"] = 0.5
        rows.append(PointCompleted(run.run_id, 2, metrics, points[2]))
    state = GroupState().apply(Row(number, 0, event) for number, event in enumerate(rows, start=1))
    return groups, {groups[0].group_id: state}


def test_each_evaluation_point_is_a_row_and_a_sampled_accuracy_has_an_interval(measured: tuple[Plan, States]) -> None:
    found = tables.points_table(*measured)
    assert list(found.columns) == ["run", "seed", "num_learned", "metric", "value", "low", "high"]
    assert set(found["seed"]) == {0}
    assert sorted(found["metric"]) == ["accuracy", "accuracy", "accuracy_strict", "num_bytes", "num_bytes"]
    (strict,) = found[found["metric"] == "accuracy_strict"].to_dict("records")
    interval = wilson(20, 40)  # in GNu, an answer with another task's mask is wrong
    assert (strict["low"], strict["high"]) == pytest.approx((interval.low, interval.high))
    assert found[found["metric"] != "accuracy_strict"]["low"].isna().all()


def test_the_size_of_a_hopfield_network_is_shown_beside_the_stored_bytes(sweep_file: Callable[..., Path]) -> None:
    file = sweep_file(
        scenario="GG", net={"name": "hopfield_mlp", "num_outputs": 10, "width": 16}, method={"name": "hop_sup_sup"},
        evaluation={"at": [3]},
    )  # fmt: skip
    (group,) = open_sweep(file, []).plan()
    (point,) = group.points
    rows: list[Any] = [evaluated(key, task, paper=counts(80, 9, {"0": 10})) for task, key in enumerate(point[3])]
    rows.append(PointCompleted(group.runs[0].run_id, 3, {"accuracy": 0.8, "num_bytes": 300.0}, point[3]))
    state = GroupState().apply(Row(number, 0, event) for number, event in enumerate(rows, start=1))
    final = tables.final_table(tables.summary_table(tables.points_table([group], {group.group_id: state})))
    assert final["bytes per task"].tolist() == [100]
    assert final["Hopfield bytes per task"].tolist() == [round(2 * 4 * 16**2 / 3)]  # two layers of 16 x 16 floats


def test_each_task_is_a_row_and_its_right_answers_follow_the_scenario(measured: tuple[Plan, States]) -> None:
    found = tables.tasks_table(*measured)
    accuracy = {(row["run"].split()[0], row["task"]): row["accuracy"] for row in found.to_dict("records")}
    assert accuracy == {("GG", 0): 0.8, ("GG", 1): 0.9, ("GNu", 0): 0.75, ("GNu", 1): 0.85}
    gnu = found[found["run"] != "GG"]
    assert gnu["accuracy_strict"].tolist() == pytest.approx([0.5, 0.5])
    assert gnu["task_inference_accuracy"].tolist() == pytest.approx([0.9, 0.9])
    assert found[found["run"] == "GG"]["accuracy_strict"].isna().all()


def test_the_confusion_table_contains_only_runs_that_infer_the_task(measured: tuple[Plan, States]) -> None:
    found = tables.confusion_table(*measured)
    assert {run.split()[0] for run in found["run"]} == {"GNu"}
    pairs = [tuple(row) for row in found[["task", "mask", "decisions"]].to_numpy().tolist()]
    assert sorted(pairs) == [(0, 0, 9), (0, 1, 1), (1, 1, 10)]


def test_without_measurements_all_tables_are_empty_but_have_their_columns(measured: tuple[Plan, States]) -> None:
    groups, _ = measured
    assert tables.points_table(groups, {}).empty
    assert list(tables.confusion_table(groups, {}).columns) == [
        "run", "seed", "num_learned", "task", "mask", "decisions"
    ]  # fmt: skip
    assert tables.allocation_table(groups, {}).empty
    assert tables.recovery_table(groups, {}).empty


def rows_of(*rows: tuple[str, int, int, str, float]) -> pd.DataFrame:
    columns = ["run", "seed", "num_learned", "metric", "value"]
    return pd.DataFrame(rows, columns=columns).assign(low=math.nan, high=math.nan)


def test_a_summary_is_the_mean_over_seeds_with_a_students_t_interval() -> None:
    points = rows_of(*(("a", seed, 2, "accuracy", value) for seed, value in enumerate((0.5, 0.6, 0.7))))
    (row,) = tables.summary_table(points).to_dict("records")
    assert (row["run"], row["num_learned"], row["metric"], row["num_seeds"]) == ("a", 2, "accuracy", 3)
    assert row["mean"] == pytest.approx(0.6)
    half = 4.302652729911275 * 0.1 / math.sqrt(3)  # the quantile of Student's t with two degrees of freedom
    assert (row["low"], row["high"]) == pytest.approx((0.6 - half, 0.6 + half))


def test_with_one_seed_the_summary_has_the_interval_of_the_sampled_images() -> None:
    points = rows_of(("a", 0, 2, "accuracy_strict", 0.5)).assign(low=0.4, high=0.6)
    (row,) = tables.summary_table(points).to_dict("records")
    assert (row["low"], row["mean"], row["high"]) == (0.4, 0.5, 0.6)


def test_the_final_table_shows_each_runs_last_evaluation_point_in_percent() -> None:
    points = rows_of(
        ("a", 0, 2, "accuracy", 0.9), ("a", 0, 2, "num_bytes", 200.0),
        ("a", 0, 5, "accuracy", 0.81234), ("a", 0, 5, "masks", 3.25), ("a", 0, 5, "num_bytes", 500.0),
        ("b", 0, 2, "accuracy", 0.5), ("b", 0, 2, "num_bytes", 90.0),
    )  # fmt: skip
    found = tables.final_table(tables.summary_table(points))
    assert list(found.columns) == ["run", "tasks", "seeds", "accuracy %", "accuracy % ±", "masks", "bytes per task"]
    assert found[["run", "tasks", "accuracy %", "bytes per task"]].to_dict("split")["data"] == [
        ["a", 5, 81.23, 100],
        ["b", 2, 50.0, 45],
    ]


def test_runs_are_compared_by_seed_at_the_last_evaluation_point_that_both_have() -> None:
    points = rows_of(
        ("a", 0, 2, "accuracy", 0.10), ("a", 0, 5, "accuracy", 0.50), ("a", 1, 5, "accuracy", 0.70),
        ("a", 2, 5, "accuracy", 0.90), ("b", 0, 5, "accuracy", 0.52), ("b", 1, 5, "accuracy", 0.73),
        ("b", 9, 5, "accuracy", 0.99), ("b", 0, 10, "accuracy", 0.99),
        ("c", 0, 5, "accuracy", 0.60),
    )  # fmt: skip
    (row,) = tables.paired_table(points).to_dict("records")  # c has only one seed in common
    assert (row["run"], row["against"], row["tasks"], row["seeds"]) == ("b", "a", 5, 2)
    assert row["difference"] == pytest.approx(2.5)
    assert row["low"] < 2.5 < row["high"]


def decided(ordinal: int, task: int, mask: int | None, outcome: str = "train", freed: int | None = None) -> Row:  # type: ignore[type-arg]
    event = SegmentDecided(
        round=ordinal, ordinal=ordinal, stream=0, task=task, segment=0, num_masks=1, statistic=0.5, threshold=1.0,
        best=None, second=None, outcome=outcome, mask=mask, freed=freed, standing_out=(), margin=-0.5, key=None,
        loss=None if mask is None else 0.5, seconds=1.0, latency=0.25,
    )  # fmt: skip
    return Row(ordinal + 1, 1_700_000_000_123, event)


def test_the_decisions_table_marks_new_tasks_duplicates_and_wrong_reuses(sweep_file: Callable[..., Path]) -> None:
    (group,) = open_sweep(sweep_file(scenario="NNs", stream={"segment_batches": 10}, evaluation={"at": [3]}), []).plan()
    state = GroupState().apply(
        [
            decided(0, 0, 0, "allocate"),
            decided(1, 0, 0),
            decided(2, 1, 0),  # trains another task's mask: a wrong reuse
            decided(3, 0, 1, "allocate"),  # task 0 has a mask already: a duplicate
            decided(4, 2, None, "skip"),
        ]
    )
    found = tables.decisions_table([group], {group.group_id: state})
    assert found["truth"].tolist() == ["new", "known", "new", "known", "new"]
    assert found["duplicate"].tolist() == [False, False, False, True, False]
    assert found["wrong_reuse"].tolist() == [False, False, True, False, False]
    assert found["mask"].tolist() == [0, 0, 0, 1, pd.NA]
    assert set(found["time"]) == {"2023-11-14T22:13:20.123+00:00"}
    assert (set(found["run"]), set(found["seed"])) == ({group.runs[0].label}, {0})


def test_allocation_metrics_and_confusions_of_nns_name_masks_by_their_numbers(sweep_file: Callable[..., Path]) -> None:
    (group,) = open_sweep(sweep_file(scenario="NNs", stream={"segment_batches": 10}, evaluation={"at": [3]}), []).plan()
    due = EvaluationDue(3, tasks=(0,), numbers=(4, 7), keys=("x", "y"), right=((1,),))
    paper = counts(90, 9, {"0": 1, "1": 9})
    events = [
        TasksMet(2, {"masks": 2.0}, 0.0, 0.0), TasksMet(1, {"masks": 1.0}, 0.0, 0.0), due,
        evaluated("e", 0, paper=paper), PointCompleted(group.runs[0].run_id, 3, {"accuracy": 0.5}, ("e",)),
    ]  # fmt: skip
    states = {group.group_id: GroupState().apply(Row(n, 0, event) for n, event in enumerate(events, start=1))}
    assert tables.allocation_table([group], states)[["num_learned", "masks"]].to_numpy().tolist() == [[1, 1], [2, 2]]
    confusion = tables.confusion_table([group], states)
    assert confusion[["mask", "decisions"]].to_numpy().tolist() == [[4, 1], [7, 9]]


def test_each_step_of_a_hopfield_recovery_is_a_row(sweep_file: Callable[..., Path]) -> None:
    (group,) = open_sweep(sweep_file(evaluation={"at": [1]}), ["benchmark.num_tasks=1"]).plan()
    (key,) = group.points[0][1]
    traced = ProtocolCounts(100, 90, 90, 10, 9, {"0": 10}, recovered=9, distances=(3.0, 1.5, 0.0))
    events = [evaluated(key, 0, paper=traced), PointCompleted(group.runs[0].run_id, 1, {"accuracy": 0.9}, (key,))]
    state = GroupState().apply(Row(n, 0, event) for n, event in enumerate(events, start=1))
    found = tables.recovery_table([group], {group.group_id: state})
    assert found[["task", "step", "distance"]].to_numpy().tolist() == [[0, 0, 3.0], [0, 1, 1.5], [0, 2, 0.0]]
