"""What a launch gives each training group."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.execution.launch import tasks_at_once
from orchestrator.spec.experiment import build_experiment
from orchestrator.spec.sweep_config import Resources
from orchestrator.sweeps.training_groups import Run, make_plan
from tests.sweeps.test_training_groups import NODE


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
