"""Planning: pure, shared where it can be, different where it must be."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from orchestrator.execution.launch import tasks_at_once
from orchestrator.records.group_state import GroupState
from orchestrator.spec.experiment import build_experiment
from orchestrator.spec.sweep_config import Resources
from orchestrator.sweeps.cost_estimate import estimate_group
from orchestrator.sweeps.sweep import open_sweep
from orchestrator.sweeps.training_groups import Run, make_plan, shard_keys, share_workers

NODE: dict[str, Any] = {
    "scenario": "GNu",
    "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 5},
    "net": {"name": "lenet_300_100", "num_outputs": 30},
    "method": {"name": "supsup"},
    "training": {"num_batches": 30},
    "inference": {},
    "evaluation": {"at": [2, 5]},
}


def keys(seed: int = 0, **changes: dict[str, Any]) -> list[str]:
    node = {key: {**value, **changes.get(key, {})} if isinstance(value, dict) else value for key, value in NODE.items()}
    experiment = build_experiment(node, seed)
    return [shard.key for shard in shard_keys(experiment, experiment.num_tasks)]


def test_a_longer_sweep_contains_the_shorter_one() -> None:
    assert keys(benchmark={"num_tasks": 9})[:5] == keys()


def test_inference_and_scenario_do_not_change_what_is_trained() -> None:
    assert keys(inference={"rule": "binary"}) == keys()


@pytest.mark.parametrize(
    "change",
    [
        {"training": {"num_batches": 31}},
        {"training": {"learning_rate": 1e-3}},
        {"net": {"num_outputs": 31}},
        {"net": {"name": "fc_1024_1024"}},
        {"net": {"weight_seed": 5}},
        {"method": {"mask": "top_k", "density": 0.3}},
        {"benchmark": {"base": "mnist"}},
        {"seed": 1},
    ],
)
def test_whatever_changes_a_task_changes_its_key(change: dict[str, Any]) -> None:
    assert not set(keys(**change)) & set(keys())


def test_a_weight_seed_that_is_the_runs_own_is_the_same_task() -> None:
    assert keys(net={"weight_seed": 0}) == keys()


def test_runs_that_differ_only_in_inference_share_one_group(sweep_file: Callable[..., Path]) -> None:
    file = sweep_file(grid={"scenario": ["GG", "GNs", "GNu"], "inference.objective": ["H", "G"]}, seeds=[0, 1])
    groups = open_sweep(file, []).plan()
    assert [group.experiment.seed for group in groups] == [0, 1]
    names = [run.name for run in groups[0].runs]
    assert names == [
        "GG seed=0",
        "GNs one_shot entropy seed=0",
        "GNs one_shot superfluous seed=0",
        "GNu one_shot entropy seed=0",
        "GNu one_shot superfluous seed=0",
    ]
    assert len(groups[0].shards) == 3


def test_gns_and_gnu_share_their_evaluations_and_a_known_task_is_tested_once(sweep_file: Callable[..., Path]) -> None:
    (group,) = open_sweep(sweep_file(grid={"scenario": ["GG", "GNs", "GNu"]}), []).plan()
    assert group.points[1] == group.points[2]
    assert set(group.points[0][1]) < set(group.points[0][3])
    assert len(group.evaluations) == 3 + (1 + 3)


METHODS = {
    "SupSup": {"net.num_outputs": 30},
    "BatchE": {"method": {"name": "batch_e", "weight_learning_rate": 1e-3}, "training.learning_rate": 1e-2},
}


def test_variants_are_run_by_name_with_every_combination(sweep_file: Callable[..., Path]) -> None:
    file = sweep_file(scenario="GG", variants=METHODS, grid={"training.num_batches": [3, 4]}, seeds=[0, 1])
    runs = open_sweep(file, []).runs()
    assert [run.name for run in runs] == [
        f"{name} GG num_batches={count} seed={seed}"
        for name in ("SupSup", "BatchE")
        for count in (3, 4)
        for seed in (0, 1)
    ]
    (batch_e,) = {run.experiment.method for run in runs[4:]}
    assert batch_e.weight_learning_rate == 1e-3  # type: ignore[attr-defined]
    assert {run.experiment.training.learning_rate for run in runs[4:]} == {1e-2}
    assert {run.experiment.training.learning_rate for run in runs[:4]} == {1e-4}
    some = open_sweep(file, ["only=[BatchE]", "training.learning_rate=0.5"]).runs()
    assert {run.label.split()[0] for run in some} == {"BatchE"}
    assert {run.experiment.training.learning_rate for run in some} == {0.5}


def test_a_recipe_with_warm_up_can_be_planned(supsup: Callable[..., Any], sweep_file: Callable[..., Path]) -> None:
    training = {"num_batches": 20, "warmup_batches": 5, "schedule": "cosine"}
    for method in ({"name": "supsup"}, {"name": "icarl", "num_exemplars": 15}):
        benchmark = {"name": "permuted", "base": "digits", "num_tasks": 1}
        found = supsup("plan", sweep_file(scenario="GG", training=training, method=method, benchmark=benchmark))
        assert found.code == 0, found.err
        assert "training batches timed" in found.out


def test_what_files_told_is_asked_once(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished sweep over a folder of images is reported without it, and a change of it is told."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part, name in itertools.product(("train", "test"), ("ant", "bee")):
        (tmp_path / "data" / "beasts" / part / name).mkdir(parents=True)
        for number in range(6):
            shade = (200 * (name == "bee"), 10 * number, 0)
            Image.new("RGB", (8, 8), shade).save(tmp_path / "data" / "beasts" / part / name / f"{number}.png")
    base = {"name": "image_folder", "folder": "beasts", "num_classes": 2, "side": 8}
    benchmark = {"name": "split", "base": base, "num_tasks": 1}
    file = sweep_file(scenario="GG", benchmark=benchmark, evaluation={"at": [1]})
    assert supsup("sweep", file, "--local", f"data={tmp_path / 'data'}").code == 0
    (tmp_path / "data").rename(tmp_path / "gone")
    found = supsup("report")
    assert found.code == 0, found.err
    assert supsup("status").code == 0
    (tmp_path / "gone").rename(tmp_path / "data")
    (tmp_path / "data" / "beasts" / "train" / "ant" / "3.png").unlink()
    found = supsup("sweep", file, "--local", f"data={tmp_path / 'data'}")
    assert found.code == 2, found
    assert "give the sweep another name" in found.err


def test_a_variant_that_only_changes_its_name_is_the_same_training(sweep_file: Callable[..., Path]) -> None:
    plain = open_sweep(sweep_file(), []).plan()
    named = open_sweep(sweep_file(variants={"SupSup": {}}), []).plan()
    assert [group.group_id for group in plain] == [group.group_id for group in named]


def test_two_lengths_share_the_shorter_ones_tasks(sweep_file: Callable[..., Path]) -> None:
    (group,) = open_sweep(sweep_file(grid={"benchmark.num_tasks": [2, 3]}), []).plan()
    assert len(group.shards) == 3
    assert len(group.runs) == 2


@settings(max_examples=20)
@given(st.permutations(list(NODE)), st.integers(0, 3), st.integers(1, 6))
def test_a_plan_depends_on_values_alone_not_on_their_order(order: list[str], seed: int, num_tasks: int) -> None:
    benchmark = {"num_tasks": num_tasks, "base": "digits", "name": "permuted"}
    plain = {**NODE, "benchmark": benchmark}
    shuffled = {key: plain[key] for key in order}
    plans = [make_plan([Run(build_experiment(node, seed), {})]) for node in (plain, shuffled)]
    assert json.dumps(plans[0][0].to_node()) == json.dumps(plans[1][0].to_node())


def test_a_plan_is_the_same_in_another_process(sweep_file: Callable[..., Path]) -> None:
    file = sweep_file()
    code = (
        "import sys, json; from pathlib import Path; from orchestrator.sweeps.lookup import open_sweep\n"
        "print(json.dumps([group.to_node() for group in open_sweep(Path(sys.argv[1]), []).plan()]))"
    )
    found = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == json.loads(json.dumps([g.to_node() for g in open_sweep(file, []).plan()]))


def test_a_benchmark_whose_tasks_depend_on_their_number_can_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from supsup_core.tasks.permuted import Permuted

    monkeypatch.setattr(Permuted, "identity", lambda self: {"base": self.base, "num_tasks": self.num_tasks})
    assert keys(benchmark={"num_tasks": 9})[:5] != keys()


@pytest.mark.parametrize(
    ("net", "resources", "picked"),
    [
        ("lenet_300_100", {}, 1),
        ("lenet_300_100", {"device": "cuda"}, 32),
        ("lenet_300_100", {"device": "cuda", "tasks_at_once": 3}, 3),
        ("lenet_300_100", {"tasks_at_once": 2}, 2),
        ("fc_1024_1024", {"device": "cuda"}, 14),
    ],
)
def test_as_many_tasks_are_trained_at_once_as_pay(net: str, resources: dict[str, Any], picked: int) -> None:
    node = {**NODE, "net": {"name": net, "num_outputs": 30}}
    node["benchmark"] = {**node["benchmark"], "num_tasks": 128}
    (group,) = make_plan([Run(build_experiment(node, 0), {})])
    assert tasks_at_once(Resources(**resources), group, 2) == picked
    assert tasks_at_once(Resources(**resources), group, 128) == min(picked, resources.get("tasks_at_once", 1))


def test_thousands_of_tasks_are_planned_at_once() -> None:
    """The keys of 20,000 evaluations, each of which depends on up to 10,000 masks."""
    node = {**NODE, "benchmark": {**NODE["benchmark"], "num_tasks": 10_000}, "evaluation": {"at": [10_000]}}
    started = time.perf_counter()
    (group,) = make_plan([Run(build_experiment(node, 0), {})])
    assert time.perf_counter() - started < 5
    assert len({item.key for item in group.evaluations}) == 10_000


@pytest.mark.parametrize(
    ("methods", "most", "shares"),
    [
        (["supsup", "psp"], 2, [2, 2]),
        (["psp"], 8, [8]),
        (["psp", "psp"], 8, [4, 4]),
        (["psp", "supsup", "psp", "psp"], 2, [1, 2, 1, 1]),
        (["supsup"] * 3, 4, [4, 4, 4]),
        (["supsup"] * 3, 64, [21, 21, 21]),
        (["supsup"] * 20, 64, [5] * 20),
        (["psp", "supsup"], 64, [32, 32]),
        (["nns", "psp", "psp"], 64, [64, 32, 32]),
        ([], 3, []),
    ],
)
def test_a_group_leaves_the_workers_that_it_cannot_train_on_to_others(
    methods: list[str], most: int, shares: list[int]
) -> None:
    changes: dict[str, dict[str, Any]] = {
        "supsup": {},
        "psp": {"scenario": "GG", "method": {"name": "psp"}},
        "nns": {"scenario": "NNs", "stream": {"segment_batches": 30}, "allocation": {"name": "outlier"}, "budget": {}},
    }
    runs = [Run(build_experiment({**NODE, **changes[name]}, seed), {}) for seed, name in enumerate(methods)]
    groups = make_plan(runs)
    assert list(share_workers(groups, most).values()) == shares


@pytest.mark.parametrize(("method", "faster"), [("supsup", 4), ("psp", 1)])
def test_more_workers_are_expected_to_train_faster_only_where_tasks_do_not_wait(method: str, faster: int) -> None:
    node = {**NODE, "scenario": "GG", "method": {"name": method}}
    (group,) = make_plan([Run(build_experiment(node, 0), {})])
    one, four = (estimate_group(group, GroupState(), (4, 0), workers).seconds for workers in (1, 4))
    assert one == pytest.approx(faster * four)
