"""What a plan will cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records.group_state import GroupState
from orchestrator.spec.experiment import build_experiment
from orchestrator.sweeps.cost_estimate import estimate_group
from orchestrator.sweeps.training_groups import Run, make_plan
from tests.sweeps.test_training_groups import NODE


def test_a_recipe_with_warm_up_can_be_planned(supsup: Callable[..., Any], sweep_file: Callable[..., Path]) -> None:
    training = {"num_batches": 20, "warmup_batches": 5, "schedule": "cosine"}
    for method in ({"name": "supsup"}, {"name": "icarl", "num_exemplars": 15}):
        benchmark = {"name": "permuted", "base": "digits", "num_tasks": 1}
        found = supsup("plan", sweep_file(scenario="GG", training=training, method=method, benchmark=benchmark))
        assert found.code == 0, found.err
        assert "training batches timed" in found.out


@pytest.mark.parametrize(("method", "faster"), [("supsup", 4), ("psp", 1)])
def test_more_workers_are_expected_to_train_faster_only_where_tasks_do_not_wait(method: str, faster: int) -> None:
    node = {**NODE, "scenario": "GG", "method": {"name": method}}
    (group,) = make_plan([Run(build_experiment(node, 0), {})])
    one, four = (estimate_group(group, GroupState(), (4, 0), workers).seconds for workers in (1, 4))
    assert one == pytest.approx(faster * four)
