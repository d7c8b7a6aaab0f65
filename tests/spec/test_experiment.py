"""Building an experiment from plain values."""

from __future__ import annotations

import pytest

from orchestrator.base.plain_values import Node
from orchestrator.spec.experiment import DatasetError, EvaluationConfig, build_component, build_experiment
from supsup_core.datasets import Base
from supsup_core.errors import InputError
from supsup_core.nets import NETS

NODE: Node = {
    "scenario": "GNu",
    "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 5},
    "net": {"name": "lenet_300_100", "num_outputs": 30},
    "method": {"name": "supsup"},
    "training": {"num_batches": 30},
    "inference": {},
    "evaluation": {"at": [2, 5]},
}
NNS: Node = {
    **NODE,
    "scenario": "NNs",
    "stream": {"segment_batches": 10},
    "allocation": {"name": "ratio"},
    "budget": {"num_masks": 3},
}


@pytest.mark.parametrize(
    ("at", "num_tasks", "points"),
    [(None, 10, [1, 2, 5, 10]), (None, 7, [1, 2, 5, 7]), ([10, 50], 50, [10, 50]), ([10, 50], 30, [10, 30])],
)
def test_evaluation_points(at: list[int] | None, num_tasks: int, points: list[int]) -> None:
    experiment = build_experiment(
        {**NODE, "evaluation": {"at": at}, "benchmark": {**NODE["benchmark"], "num_tasks": num_tasks}}, 0
    )
    assert experiment.evaluation.points(num_tasks) == points


@pytest.mark.parametrize("at", [[], [0], [3, -1]])
def test_an_evaluation_point_is_at_least_one_task(at: list[int]) -> None:
    with pytest.raises(InputError, match=r"at: must be a list of numbers of tasks, each at least 1"):
        EvaluationConfig(at=at)


def test_the_plain_values_of_an_experiment_contain_all_defaults_and_build_an_equal_experiment() -> None:
    for node in (NODE, NNS):
        made = build_experiment(node, 3)
        again = build_experiment(made.node, 3)
        assert again.node == made.node
        assert again.training_identity() == made.training_identity()
    assert made.node["training"]["batch_size"] == 128
    assert made.node["budget"] == {"num_masks": 3, "on_exhausted": "reclaim"}


def test_inference_settings_are_ignored_if_the_task_is_given() -> None:
    plain = build_experiment({**NODE, "scenario": "GG"}, 0)
    assert build_experiment({**NODE, "scenario": "GG", "inference": {"rule": "binary"}}, 0) == plain
    assert plain.inference.rule == "known"


def test_an_alias_of_an_objective_becomes_its_canonical_name() -> None:
    assert build_experiment({**NODE, "inference": {"objective": "H"}}, 0).inference.objective == "entropy"


def test_the_identity_of_masks_excludes_the_number_of_tasks_and_the_inference() -> None:
    longer = {**NODE, "benchmark": {**NODE["benchmark"], "num_tasks": 9}, "inference": {"rule": "binary"}}
    assert build_experiment(longer, 0).mask_identity() == build_experiment(NODE, 0).mask_identity()
    assert build_experiment(NODE, 1).mask_identity() != build_experiment(NODE, 0).mask_identity()


def test_the_identity_of_an_nns_run_includes_its_length_only_if_tasks_recur() -> None:
    def nns(num_tasks: int, **stream: object) -> Node:
        node = {**NNS, "benchmark": {**NODE["benchmark"], "num_tasks": num_tasks}}
        node["stream"] = {**NNS["stream"], **stream}
        return build_experiment(node, 0).training_identity()

    assert nns(5) == nns(9)
    assert nns(5, order="recurring", visits=3) != nns(9, order="recurring", visits=3)
    assert "nns" not in build_experiment(NODE, 0).training_identity()


def test_the_error_of_a_component_names_the_wrong_key() -> None:
    for value, message in (
        ("lenet", r"net: must be a mapping with a name, such as \{name: "),
        ({}, "net.name: is missing; choose one of: "),
        ({"name": "lenet"}, r"net.name: unknown net 'lenet' \(did you mean 'lenet_300_100'"),
        ({"name": "lenet_300_100", "outputs": 3}, r"net.outputs: unknown key \(did you mean"),
        ({"name": "lenet_300_100", "num_outputs": [3]}, "net.num_outputs: must be a single value, not a list"),
    ):
        with pytest.raises(InputError, match=message):
            build_component(NETS, {"net": value}, "net")
    assert build_component(NETS, {"net": {"name": "lenet_300_100", "num_outputs": "40"}}, "net").num_outputs == 40


def test_missing_files_of_a_dataset_raise_a_separate_error() -> None:
    def missing(base: Base) -> Base:
        raise InputError("no such folder")

    with pytest.raises(DatasetError, match=r"benchmark\.base: no such folder"):
        build_experiment(NODE, 0, missing)


def test_a_problem_contains_the_net_and_the_recipe_for_the_method() -> None:
    experiment = build_experiment(NODE, 7)
    problem = experiment.problem("cpu")
    assert (problem.net, problem.recipe, problem.seed) == (experiment.net, experiment.training, 7)
    assert (problem.input_shape, problem.num_labels, problem.device) == ((64,), 10, "cpu")
