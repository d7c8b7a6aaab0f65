"""Complete `supsup` commands, from the sweep file to the printed output."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

Command = Callable[..., Any]


def test_plan_prints_the_work_of_a_sweep_and_writes_nothing(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    file = sweep_file(grid={"scenario": ["GG", "GNu"]}, seeds=[0, 1])
    found = supsup("plan", file, "--json")
    node = json.loads(found.out)
    assert [group["shards"] for group in node["groups"]] == [3, 3]
    assert node["groups"][0]["runs"] == ["GG seed=0", "GNu one_shot entropy seed=0"]
    assert node["estimate"]["seconds"] > 0
    assert node["estimate"]["disk_bytes"] > 6 * 6000
    assert not (tmp_path / "runs").exists()
    assert "6 runs" not in supsup("plan", file).out
    assert "4 runs in 2 training groups" in supsup("plan", file).out
    assert supsup("sweep", file, "--local").code == 0
    node = json.loads(supsup("plan", file, "--json").out)
    assert [group["shards_done"] for group in node["groups"]] == [3, 3]
    assert node["estimate"]["seconds"] == 0
    longer = json.loads(supsup("plan", file, "benchmark.num_tasks=5", "--json").out)
    assert [group["shards_done"] for group in longer["groups"]] == [3, 3]


def test_a_plan_times_the_training_only_once(supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    # no other test in this process plans these settings
    file = sweep_file(training={"num_batches": 30, "batch_size": 77})
    first = supsup("plan", file)
    assert first.code == 0, first.err
    (kept,) = (tmp_path / "home" / ".cache" / "supsup" / "timings").iterdir()
    before = kept.read_bytes()
    command = [sys.executable, "-m", "orchestrator.cli", "plan", str(file)]

    def planned() -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert planned() == first.out
    assert kept.read_bytes() == before
    kept.write_text("{}")  # a damaged cache is measured again
    assert "training batches timed" in planned()
    assert set(json.loads(kept.read_text())) == set(json.loads(before))


def test_a_sweep_without_its_dataset_is_refused_before_it_writes_a_file(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    missing = sweep_file(benchmark={"name": "permuted", "base": "mnist", "num_tasks": 3})
    found = supsup("sweep", missing, f"output={tmp_path / 'other'}", f"data={tmp_path}")
    assert (found.code, len(found.err.splitlines())) == (2, 1)
    assert "train-images-idx3-ubyte.gz: is missing" in found.err
    assert not (tmp_path / "other").exists()


def test_sweeps_are_listed_with_what_each_scale_costs(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    sweep_file(scales={"smoke": {"benchmark.num_tasks": 2}}, seeds=[0, 1])
    (tmp_path / "broken.yaml").write_text("name: [")
    (tmp_path / "odd.yaml").write_bytes(b"name: \xff")
    lost = {"name": "split", "base": {"name": "image_folder", "folder": "cats", "num_classes": 3}, "num_tasks": 1}
    sweep_file("lost.yaml", benchmark=lost)
    (tmp_path / "small.yaml").write_text(f"# Small it is. And quick.\n{(tmp_path / 'small.yaml').read_text()}")
    found = supsup("sweeps", tmp_path)
    assert found.code == 0
    assert "small: Small it is\n" in found.out
    assert re.search(r"  smoke  2 runs, 4 tasks to train: \d+ s on \d+ workers?, .* MB of disk", found.out)
    assert re.search(r"  paper  2 runs, 6 tasks to train", found.out)
    assert re.search(r"lost: .*\n  paper  cannot be planned on this machine: benchmark.base: .*cats", found.out)
    assert "broken: is not a valid sweep file: " in found.out
    assert "odd: is not a valid sweep file: " in found.out
    assert supsup("sweeps", tmp_path / "none").code == 2


def test_a_sweep_ends_with_its_table_and_the_paths_of_its_results(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    found = supsup("sweep", sweep_file(seeds=[0, 1]), "--local", "output=here")
    assert found.code == 0
    assert "GNu one_shot entropy" in found.out
    assert " ± " in found.out
    assert "supsup ui output=here" in found.out
    (report,) = (tmp_path / "here" / "sweeps").glob("small-*/report")
    assert {path.name for path in report.iterdir()} == {
        "accuracy_by_task.png", "accuracy_by_task.svg", "accuracy_over_tasks.png", "accuracy_over_tasks.svg",
        "confusion.csv", "final.csv", "paired.csv", "points.csv", "published.csv", "report.html", "report.md",
        "summary.csv", "tasks.csv",
    }  # fmt: skip
    tasks = pd.read_csv(report / "tasks.csv")
    points = pd.read_csv(report / "points.csv")
    for seed in (0, 1):
        mean = tasks[(tasks.seed == seed) & (tasks.num_learned == 3)].accuracy.mean()
        reported = points[(points.seed == seed) & (points.num_learned == 3) & (points.metric == "accuracy")].value
        assert mean == pytest.approx(float(reported.iloc[0]))
    confusion = pd.read_csv(report / "confusion.csv")
    assert set(confusion[confusion.seed == 0].task) == {0, 1, 2}
    for picture in report.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_full_name_or_whole_words_of_it_are_never_ambiguous(supsup: Command, sweep_file: Callable[..., Path]) -> None:
    variants = {"transfer": {}, "no transfer": {"net.num_outputs": 31}, "b=1": {"net.num_outputs": 32}, "b=16": {}}
    assert supsup("sweep", sweep_file(variants=variants, scenario="GG", seeds=[1, 10]), "--local").code == 0
    for one, other in (("transfer GG seed=1", "no transfer GG seed=1"), ("b=1 seed=1", "no transfer seed=10")):
        found = supsup("compare", one, other)
        assert found.code == 0, found.err
    assert supsup("report", "small").code == 0
    assert supsup("sweep", sweep_file("smaller.yaml", name="small_smoke"), "--local").code == 0
    assert supsup("report", "small").code == 0  # although small_smoke has the same prefix


def test_compare_shows_the_settings_in_which_runs_differ(supsup: Command, sweep_file: Callable[..., Path]) -> None:
    assert supsup("compare", "a", "b").code == 2
    assert supsup("sweep", sweep_file(grid={"scenario": ["GG", "GNu"]}, seeds=[0, 1]), "--local").code == 0
    found = supsup("compare", "small GG seed=0", "GNu seed=1")
    assert re.search(r"backward_transfer +0\.00 % +-?\d+\.\d\d %", found.out)
    assert found.code == 0, found.err
    lines = {line.split("  ")[0].strip(): line.split()[-2:] for line in found.out.splitlines()}
    assert lines["scenario"] == ["GG", "GNu"]
    assert lines["seed"] == ["0", "1"]
    assert "training.num_batches" not in lines  # equal in both runs
    assert "after 3 tasks" in found.out
    assert re.search(r"  accuracy +\d+\.\d\d % +\d+\.\d\d %", found.out)
    assert supsup("compare", "GG seed=0", "small-", "GNu").code == 2
    assert "two different runs" in supsup("compare", "small GG seed=0", "GG seed=0").err
    ambiguous = supsup("compare", "small GG", "GNu seed=1")
    assert ambiguous.code == 2
    assert "several runs match" in ambiguous.err
    assert "no run matches" in supsup("compare", "small GX", "GNu seed=1").err
    assert "two different runs" in supsup("compare", "small GG seed=0").err


def test_evaluate_trains_nothing_and_adds_permanent_runs(supsup: Command, sweep_file: Callable[..., Path]) -> None:
    assert supsup("sweep", sweep_file(), "--local").code == 0
    found = supsup("evaluate", "small", "inference.rule=binary", "inference.objective=energy", "--local")
    assert found.code == 0, found.err
    assert "GNu binary energy" in found.out
    assert "GNu one_shot entropy" in found.out
    again = supsup("resume", "--local")
    assert "GNu binary energy" in again.out
    refused = supsup("evaluate", "small", "training.num_batches=4", "--local")
    assert refused.code == 2
    assert "can change only inference.*" in refused.err
    longer = supsup("evaluate", "small", "inference.rule=bynary", "--local")
    assert longer.code == 2
    assert "did you mean 'binary'" in longer.err


def test_evaluate_before_training_is_refused(supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    assert supsup("sweep", sweep_file(), "--local").code == 0
    for path in (tmp_path / "runs" / "store").glob("??/*"):
        path.unlink()
    found = supsup("evaluate", "small", "inference.rule=binary", "--local")
    assert found.code == 2
    assert "3 shards are not trained" in found.err


def test_status_and_report_read_the_output_on_disk(supsup: Command, sweep_file: Callable[..., Path]) -> None:
    assert supsup("sweep", sweep_file(), "--local").code == 0
    status = json.loads(supsup("status", "small", "--json").out)
    assert (status["state"], status["shards_done"], status["evaluations_done"]) == ("done", 3, 5)
    assert status["groups"][0]["failures"] == []
    found = supsup("report", "small")
    assert found.code == 0, found.err
    assert "GNu one_shot entropy" in found.out


def test_a_corrupt_artifact_is_named_and_only_its_shard_is_trained_again(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    first = supsup("sweep", sweep_file(), "--local")
    node = json.loads(supsup("plan", sweep_file(), "--json").out)
    assert node["groups"][0]["shards_done"] == 3
    masks = [path for path in (tmp_path / "runs" / "store").glob("??/*") if path.stat().st_size > 5000]
    assert len(masks) == 3
    good = masks[0].read_bytes()
    masks[0].write_bytes(good[:2000] + bytes([good[2000] ^ 1]) + good[2001:])
    found = supsup("resume", "--local")
    assert found.code == 0, found.err
    assert f"recomputed: {tmp_path}/runs/store/corrupt/{masks[0].stem}" in found.out
    assert masks[0].read_bytes() == good
    table = first.out.split("\n\n")[1]
    assert table in found.out
    assert "recomputed" not in supsup("resume", "--local").out


def test_a_failing_run_exits_with_1_names_the_task_and_can_be_resumed(
    supsup: Command, sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from supsup_core.methods.supsup import SupSup

    real = SupSup.learn

    def fails_at_task_1(self: Any, problem: Any, index: int, *rest: Any) -> Any:
        if index == 1:
            raise RuntimeError("no luck with this task")
        return real(self, problem, index, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(SupSup, "learn", fails_at_task_1)
        found = supsup("sweep", sweep_file(), "--local")
    assert found.code == 1
    assert "FAILED  task 1: RuntimeError: no luck with this task" in found.out
    assert "supsup resume small-" in found.out
    (log,) = (tmp_path / "runs" / "sweeps").glob("small-*/supsup.log")
    assert "fails_at_task_1" in log.read_text()
    status = supsup("status")
    assert "failed" in status.out
    found = supsup("resume", "--local")
    assert found.code == 0, found.err
    assert "3/3 shards" in found.out


def test_evaluations_that_differ_in_any_key_are_separate_rows(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    """The report must never average two inference settings as if they were two seeds."""
    assert supsup("sweep", sweep_file(), "--local").code == 0
    found = supsup("evaluate", "small", "inference.images_per_decision=16", "--local")
    assert "GNu one_shot entropy images_per_decision=16" in found.out
    summary = pd.read_csv(next(tmp_path.glob("runs/sweeps/*/report/summary.csv")))
    assert set(summary.num_seeds) == {1}
    assert summary.run.nunique() == 2


def test_a_failing_mlflow_store_affects_neither_results_nor_report(
    supsup: Command, sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from orchestrator.tracking.mlflow_writer import Tracker

    def unreachable(self: Any, rows: Any) -> None:
        raise OSError("the tracking store is away")

    with monkeypatch.context() as patched:
        patched.setattr(Tracker, "project", unreachable)
        found = supsup("sweep", sweep_file(), "--local")
    assert found.code == 1
    assert "GNu one_shot entropy" in found.out
    assert "the tracking store is away" in found.err
    assert "supsup report small-" in found.err
    assert any(tmp_path.glob("runs/sweeps/*/report/final.csv"))
    assert supsup("report", "small").code == 0
