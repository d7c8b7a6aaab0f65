"""Training groups: equal work is shared, and every setting that changes a result changes its content key."""

from __future__ import annotations

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

from orchestrator.base.plain_values import from_json, to_node
from orchestrator.records.planned_group import PlannedGroup
from orchestrator.spec.experiment import build_experiment
from orchestrator.sweeps.sweep import open_sweep
from orchestrator.sweeps.training_groups import Run, make_plan, mask_id, shard_keys, share_workers
from supsup_core.methods import METHODS

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


def test_a_longer_sweep_contains_the_keys_of_a_shorter_one() -> None:
    assert keys(benchmark={"num_tasks": 9})[:5] == keys()


def test_inference_settings_do_not_change_the_keys_of_tasks() -> None:
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
def test_every_setting_that_changes_a_task_changes_its_key(change: dict[str, Any]) -> None:
    assert not set(keys(**change)) & set(keys())


def test_a_weight_seed_equal_to_the_runs_seed_does_not_change_the_key() -> None:
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


def test_gns_and_gnu_share_their_evaluations_and_in_gg_a_task_is_evaluated_once(
    sweep_file: Callable[..., Path],
) -> None:
    (group,) = open_sweep(sweep_file(grid={"scenario": ["GG", "GNs", "GNu"]}), []).plan()
    assert group.points[1] == group.points[2]
    assert set(group.points[0][1]) < set(group.points[0][3])
    assert len(group.evaluations) == 3 + (1 + 3) + 1  # in GNs and GNu, task 1 directly after it was learned


def test_where_learned_tasks_never_change_measuring_forgetting_needs_no_further_evaluation(
    sweep_file: Callable[..., Path],
) -> None:
    (group,) = open_sweep(sweep_file(scenario="GG"), []).plan()
    assert group.when_learned[0] == group.points[0][3][:2]


@pytest.mark.parametrize("at", [[3], [1, 3], [1, 2, 3]])
def test_the_evaluations_directly_after_learning_do_not_depend_on_the_evaluation_points(
    sweep_file: Callable[..., Path], at: list[int]
) -> None:
    (every,) = open_sweep(sweep_file(evaluation={"at": [1, 2, 3]}), []).plan()
    (group,) = open_sweep(sweep_file(evaluation={"at": at}), []).plan()
    assert group.when_learned == every.when_learned
    assert list(every.when_learned[0]) == [every.points[0][n][-1] for n in (1, 2)]


def test_no_task_is_evaluated_again_if_forgetting_is_not_wanted(sweep_file: Callable[..., Path]) -> None:
    (group,) = open_sweep(sweep_file(evaluation={"at": [1, 3], "forgetting": False}), []).plan()
    assert group.when_learned == ((),)
    assert len(group.evaluations) == 1 + 3


def test_trials_of_a_search_are_evaluated_only_at_the_rungs(sweep_file: Callable[..., Path]) -> None:
    file = sweep_file(search={"space": {"training.learning_rate": [1e-3, 1e-2]}, "reduction": 3}, evaluation=None)
    groups = open_sweep(file, []).plan()
    assert len(groups) == 2
    for group in groups:
        assert len(group.evaluations) == 1 + 3


def test_a_changed_version_of_a_methods_results_changes_the_keys_of_its_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    before = mask_id(build_experiment(NODE, 0))
    monkeypatch.setattr(METHODS[NODE["method"]["name"]], "results_version", 2)
    assert mask_id(build_experiment(NODE, 0)) != before


def test_the_name_of_a_variant_does_not_change_its_training_group(sweep_file: Callable[..., Path]) -> None:
    plain = open_sweep(sweep_file(), []).plan()
    named = open_sweep(sweep_file(variants={"SupSup": {}}), []).plan()
    assert [group.group_id for group in plain] == [group.group_id for group in named]


def test_runs_of_two_lengths_share_their_common_tasks(sweep_file: Callable[..., Path]) -> None:
    (group,) = open_sweep(sweep_file(grid={"benchmark.num_tasks": [2, 3]}), []).plan()
    assert len(group.shards) == 3
    assert len(group.runs) == 2


@settings(max_examples=20)
@given(st.permutations(list(NODE)), st.integers(0, 3), st.integers(1, 6))
def test_a_plan_does_not_depend_on_the_order_of_its_values(order: list[str], seed: int, num_tasks: int) -> None:
    benchmark = {"num_tasks": num_tasks, "base": "digits", "name": "permuted"}
    plain = {**NODE, "benchmark": benchmark}
    shuffled = {key: plain[key] for key in order}
    plans = [make_plan([Run(build_experiment(node, seed), {})]) for node in (plain, shuffled)]
    assert json.dumps(to_node(plans[0][0].planned())) == json.dumps(to_node(plans[1][0].planned()))


PLANS = """
import json, sys
from pathlib import Path
from orchestrator.base.plain_values import to_node
from orchestrator.sweeps.sweep import open_sweep
print(json.dumps([to_node(group.planned()) for group in open_sweep(Path(sys.argv[1]), []).plan()]))
"""


def test_a_plan_is_the_same_in_another_process(sweep_file: Callable[..., Path]) -> None:
    file = sweep_file()
    found = subprocess.run([sys.executable, "-c", PLANS, str(file)], capture_output=True, text=True, check=True)
    here = [to_node(group.planned()) for group in open_sweep(file, []).plan()]
    assert json.loads(found.stdout) == json.loads(json.dumps(here))


def test_a_recorded_plan_is_read_back_unchanged(sweep_file: Callable[..., Path]) -> None:
    groups = open_sweep(sweep_file(grid={"scenario": ["GG", "GNu"]}), []).plan()
    nns = sweep_file("nns.yaml", scenario="NNs", stream={"segment_batches": 10}, evaluation={"at": [2, 3]})
    for group in (*groups, *open_sweep(nns, []).plan()):
        planned = group.planned()
        assert from_json(json.dumps(to_node(planned)).encode(), PlannedGroup) == planned
        assert planned.size == group.size
        assert [run.name for run in planned.runs] == [run.name for run in group.runs]
    assert planned.is_nns
    assert (planned.num_streams, planned.segments_per_task) == (1, 3)
    assert planned.size == (3, 2 + 3)
    assert [run.points for run in planned.runs] == [{2: (), 3: ()}]


def test_a_benchmark_can_include_the_number_of_tasks_in_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    from supsup_core.tasks.permuted import Permuted

    monkeypatch.setattr(Permuted, "identity", lambda self: {"base": self.base, "num_tasks": self.num_tasks})
    assert keys(benchmark={"num_tasks": 9})[:5] != keys()


def test_a_plan_with_thousands_of_tasks_is_fast() -> None:
    """The plan needs the keys of 20,000 evaluations, each of which depends on up to 10,000 masks."""
    node = {**NODE, "benchmark": {**NODE["benchmark"], "num_tasks": 10_000}, "evaluation": {"at": [10_000]}}
    started = time.perf_counter()
    (group,) = make_plan([Run(build_experiment(node, 0), {})])
    assert time.perf_counter() - started < 5
    assert len({item.key for item in group.evaluations}) == 19_999


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
def test_a_group_gets_no_more_workers_than_it_can_use_and_other_groups_get_the_rest(
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
