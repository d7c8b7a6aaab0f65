"""Conversion of ledger rows to MLflow points, tested without MLflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from orchestrator.records.facts import TrainedFacts
from orchestrator.records.rows import LaunchEnded, PointCompleted, Row, SegmentDecided, ShardTrained, TasksMet
from orchestrator.sweeps.sweep import open_sweep
from orchestrator.sweeps.training_groups import Group
from orchestrator.tracking.mlflow_points import MetricPoint, SeedMeans, metric_names, training_points

NNS = {"scenario": "NNs", "stream": {"segment_batches": 10}, "evaluation": {"at": [3]}}


def trained(task: int, accuracy: float | None, seconds: float | None) -> ShardTrained:
    facts = TrainedFacts(
        task=task, accuracy=accuracy, curve=((10, 30), (2.0, 0.5)), num_images=600, num_bytes=1, weights_sha256="",
        device="cpu", threads=1, torch="", python="",
    )  # fmt: skip
    return ShardTrained(f"key{task}", facts, "", seconds=seconds)


def the_group(file: Path) -> Group:
    (group,) = open_sweep(file, []).plan()
    return group


def test_the_losses_of_a_task_have_steps_after_those_of_earlier_tasks(sweep_file: Callable[..., Path]) -> None:
    group = the_group(sweep_file())
    assert training_points(group, Row(1, 77, trained(2, 0.9, 3.0))) == [
        MetricPoint("loss", 70, 2.0, 77),
        MetricPoint("loss", 90, 0.5, 77),
        MetricPoint("task_accuracy", 2, 0.9, 77),
        MetricPoint("task_seconds", 2, 3.0, 77),
        MetricPoint("images_per_second", 2, 200.0, 77),
    ]


def test_a_task_found_in_the_store_has_no_timings_and_other_rows_have_no_points(
    sweep_file: Callable[..., Path],
) -> None:
    group = the_group(sweep_file())
    found = training_points(group, Row(1, 77, trained(0, None, None)))
    assert {point.name for point in found} == {"loss"}
    assert training_points(group, Row(2, 77, LaunchEnded("done"))) == []


def test_a_decision_has_a_loss_if_a_mask_was_trained(sweep_file: Callable[..., Path]) -> None:
    group = the_group(sweep_file(**NNS))

    def decided(loss: float | None) -> Row[SegmentDecided]:
        event = SegmentDecided(
            round=4, ordinal=4, stream=0, task=1, segment=1, num_masks=1, statistic=0.0, threshold=0.0, best=0,
            second=None, outcome="skip" if loss is None else "train", mask=None if loss is None else 0, freed=None,
            standing_out=(), margin=0.0, key=None, loss=loss, seconds=1.0, latency=0.1,
        )  # fmt: skip
        return Row(9, 88, event)

    assert training_points(group, decided(0.25)) == [MetricPoint("loss", 50, 0.25, 88)]
    assert training_points(group, decided(None)) == []


def test_allocation_metrics_become_points_after_each_tasks_worth_of_segments(sweep_file: Callable[..., Path]) -> None:
    group = the_group(sweep_file(**NNS))
    row = Row(9, 88, TasksMet(2, {"masks": 3.0}, latency=0.5, seconds=2.0))
    images = 30 * group.experiment.training.batch_size
    assert training_points(group, row) == [
        MetricPoint("masks", 2, 3.0, 88),
        MetricPoint("decision_latency", 2, 0.5, 88),
        MetricPoint("task_seconds", 2, 2.0, 88),
        MetricPoint("images_per_second", 2, images / 2.0, 88),
    ]


def completed(run_id: str, accuracy: float, time_ms: int) -> Row[PointCompleted]:
    return Row(1, time_ms, PointCompleted(run_id, 3, {"accuracy": accuracy}, ()))


def test_a_mean_is_written_when_every_seed_has_a_value_and_has_the_latest_time(sweep_file: Callable[..., Path]) -> None:
    groups = open_sweep(sweep_file(seeds=[0, 1]), []).plan()
    first, second = (run.run_id for group in groups for run in group.runs)
    means = SeedMeans(groups)
    assert means.add(completed(first, 0.5, 900)) == []
    assert means.add(completed("a run that the sweep does not ask for any more", 0.1, 950)) == []
    assert means.add(completed(second, 0.7, 800)) == [MetricPoint("accuracy", 3, 0.6, 900)]
    assert means.add(completed(second, 0.9, 990)) == [MetricPoint("accuracy", 3, 0.6, 900)]  # the first row counts


def test_several_configurations_have_separate_metrics_with_names_that_mlflow_accepts(
    sweep_file: Callable[..., Path],
) -> None:
    groups = open_sweep(sweep_file(variants={"a, b": {"net.num_outputs": 31}, "c": {}}, scenario="GG"), []).plan()
    means = SeedMeans(groups)
    names = [
        point.name
        for group in groups
        for run in group.runs
        for point in means.add(completed(run.run_id, 0.5, 1))
    ]  # fmt: skip
    assert names == ["accuracy/a_ b GG", "accuracy/c GG"]


@given(st.lists(st.text(max_size=300), unique=True, max_size=8))
@example(["lr+", "lr*", "a//b", "a/./b", "..", "基线 α"])
@example(["A", "a"])
def test_metric_names_are_valid_and_unique(texts: list[str]) -> None:
    names = metric_names(texts)
    assert len({name.lower() for name in names.values()}) == len(texts)
    for name in names.values():
        _validate_metric_name(f"accuracy/{name}")


def test_a_valid_name_stays_as_it_is() -> None:
    assert metric_names(["GNu one_shot", "lr:0.1"]) == {"GNu one_shot": "GNu one_shot", "lr:0.1": "lr:0.1"}
