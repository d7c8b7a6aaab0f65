"""The estimated time, disk space and memory of a plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.base.sealed_json import unseal
from orchestrator.records.group_state import GroupState
from orchestrator.records.planned_group import GroupSize
from orchestrator.records.rows import Event, GroupPlanned, Row, ShardTrained, TaskEvaluated
from orchestrator.spec.experiment import build_experiment
from orchestrator.sweeps import cost_estimate
from orchestrator.sweeps.cost_estimate import estimate_group, probe_of
from orchestrator.sweeps.training_groups import Run, make_plan
from supsup_core.methods import Learned
from supsup_core.methods.supsup import SupSup
from tests.records.samples import ENVIRONMENT, EVALUATED, TRAINED
from tests.sweeps.test_training_groups import NODE


def test_a_recipe_with_warm_up_can_be_planned(supsup: Callable[..., Any], sweep_file: Callable[..., Path]) -> None:
    training = {"num_batches": 20, "warmup_batches": 5, "schedule": "cosine"}
    for method in ({"name": "supsup"}, {"name": "icarl", "num_exemplars": 15}):
        benchmark = {"name": "permuted", "base": "digits", "num_tasks": 1}
        found = supsup("plan", sweep_file(scenario="GG", training=training, method=method, benchmark=benchmark))
        assert found.code == 0, found.err
        assert "training batches timed" in found.out


@pytest.mark.parametrize(("method", "faster"), [("supsup", 4), ("psp", 1)])
def test_more_workers_shorten_the_estimate_only_if_tasks_are_independent(method: str, faster: int) -> None:
    node = {**NODE, "scenario": "GG", "method": {"name": method}}
    (group,) = make_plan([Run(build_experiment(node, 0), {})])
    one, four = (estimate_group(group, GroupState(), GroupSize(4, 0), workers).seconds for workers in (1, 4))
    assert one == pytest.approx(faster * four)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder for timings."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_estimate_prefers_the_times_of_trained_tasks_to_a_timed_probe() -> None:
    (group,) = make_plan([Run(build_experiment(NODE, 0), {})])
    timed = estimate_group(group, GroupState(), GroupSize(5, 7), 1)
    assert timed.basis == "from a few training batches timed on this machine"
    events: list[Event] = [GroupPlanned(group.planned(), ENVIRONMENT)]
    events += [ShardTrained(group.shards[task].key, TRAINED, "", seconds=seconds) for task, seconds in ((0, 2), (1, 4))]
    events.append(ShardTrained(group.shards[2].key, TRAINED, ""))  # found in the store, so it took no time
    rows = [Row(number, 0, event) for number, event in enumerate(events, start=1)]
    state = GroupState().apply(rows)
    found = estimate_group(group, state, GroupSize(2, 0), 1)
    assert found.basis == "from the mean time of 2 shards already trained"
    assert found.seconds == pytest.approx(2 * 3.0)
    assert estimate_group(group, state, GroupSize(0, 10), 1).seconds == pytest.approx(10 * 0.3)
    state.apply([Row(9, 0, TaskEvaluated("e", EVALUATED, "", seconds=0.5))])
    assert estimate_group(group, state, GroupSize(0, 10), 2).seconds == pytest.approx(10 * 0.5 / 2)
    assert estimate_group(group, state, GroupSize(0, 0), 2) == replace(found, seconds=0, num_workers=2, disk_bytes=0,
                                                                      memory_bytes=2 * found.memory_bytes)  # fmt: skip


def test_the_estimated_disk_space_of_a_mask_is_one_bit_for_each_weight() -> None:
    (group,) = make_plan([Run(build_experiment(NODE, 0), {})])
    num_weights = 64 * 300 + 300 * 100 + 100 * 30
    found = estimate_group(group, GroupState(), GroupSize(5, 0), 1)
    assert 5 * num_weights / 8 < found.disk_bytes < 5 * (num_weights / 8 + 2000)


def test_experiments_with_equal_cost_share_one_timed_probe_that_is_cached_on_disk(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.sweeps.cost_estimate._PROBES", {})
    first = probe_of(build_experiment({**NODE, "training": {"num_batches": 30}}, 0))
    assert probe_of(build_experiment({**NODE, "training": {"num_batches": 60, "learning_rate": 0.5}}, 5)) is first
    (file,) = (cache / "supsup" / "timings").iterdir()
    assert unseal(file.read_bytes()) == (asdict(first), True)
    other = probe_of(build_experiment({**NODE, "training": {"batch_size": 16}}, 0))
    assert other is not first
    assert len(list(file.parent.iterdir())) == 2


@pytest.mark.parametrize("change", ["damaged", "of an earlier version"])
def test_a_damaged_probe_is_measured_again_and_one_of_an_earlier_version_is_read(
    cache: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr("orchestrator.sweeps.cost_estimate._PROBES", {})
    experiment = build_experiment({**NODE, "training": {"num_batches": 30, "learning_rate": 0.0234}}, 0)
    first = probe_of(experiment)
    (file,) = (cache / "supsup" / "timings").iterdir()
    stored = {**asdict(first), "own_bytes": 77}
    text = file.read_text().replace(f'"own_bytes": {first.own_bytes}', '"own_bytes": 77')
    file.write_text(text if change == "damaged" else json.dumps(stored))
    monkeypatch.setattr("orchestrator.sweeps.cost_estimate._PROBES", {})
    assert probe_of(experiment).own_bytes == (first.own_bytes if change == "damaged" else 77)


def test_a_cache_that_cannot_be_written_does_not_prevent_the_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("orchestrator.sweeps.cost_estimate._PROBES", {})
    node = {**NODE, "training": {"num_batches": 30}}
    assert probe_of(build_experiment(node, 0)).batch_seconds >= 0


@pytest.mark.parametrize(("long_seconds", "times"), [(1000.0, 5), (0.0, 3)])
def test_a_slow_method_is_timed_only_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, long_seconds: float, times: int
) -> None:
    """The first task once; then a short and a long training of the second task, each once or twice."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cost_estimate, "_LONG_SECONDS", long_seconds)
    monkeypatch.setattr(cost_estimate, "_PROBES", {})
    learn, calls = SupSup.learn, []

    def counted(*args: Any, **kw: Any) -> Learned:
        calls.append(1)
        return learn(*args, **kw)

    monkeypatch.setattr(SupSup, "learn", counted)
    probe_of(build_experiment(NODE, 0))
    assert len(calls) == times
