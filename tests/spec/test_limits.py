"""Sizes have limits, which are checked before anything is made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from orchestrator.spec.experiment import EvaluationConfig
from orchestrator.spec.search_space import Search
from orchestrator.spec.sweep_config import Resources, SweepConfig
from orchestrator.sweeps import cost_estimate, training_groups
from orchestrator.sweeps.sweep import open_sweep
from supsup_core.datasets import BASES
from supsup_core.errors import InputError
from supsup_core.evaluation.protocol import Inference
from supsup_core.field_limits import limits_of
from supsup_core.methods import METHODS
from supsup_core.nets import NETS
from supsup_core.nns.allocation_tests import ALLOCATION_TESTS
from supsup_core.nns.allocator import Budget
from supsup_core.nns.streams import Stream
from supsup_core.tasks import BENCHMARKS
from supsup_core.training.loop import TrainingRecipe
from tests.cli.input_grammar import BOMB

BOUNDED_BY_OTHERS = {
    "warmup_batches", "segment_batches", "visits", "num_streams", "images_per_decision", "labels_per_task", "crop",
    "grace_tasks", "reduction", "held_out", "share", "momentum", "decay", "density", "false_alarm_rate", "mean", "std",
    "num_classes",
}  # fmt: skip
"""Numbers without an upper limit in their declaration: another field or a share limits them."""


def test_every_number_of_a_config_has_an_upper_limit() -> None:
    classes: list[type] = [
        SweepConfig, Resources, EvaluationConfig, Search, Inference, Budget, Stream, TrainingRecipe,
    ]  # fmt: skip
    for registry in (METHODS, NETS, BENCHMARKS, BASES, ALLOCATION_TESTS):
        classes += [registry[name] for name in registry.names()]
    found = set()
    for cls in (one for one in classes if one.__module__.startswith(("orchestrator.", "supsup_core."))):
        for field in fields(cls):
            limits = limits_of(cls, field.name)
            is_limited = limits is not None and (limits.most is not None or limits.items is not None)
            if any(kind in str(field.type) for kind in ("int", "float")) and not is_limited:
                found.add(field.name)
    assert found - {"seed", "weight_seed"} <= BOUNDED_BY_OTHERS


NNS = ["scenario=NNs", "stream.segment_batches=1", "training.num_batches=1000"]
LIST = ", ".join(map(str, range(3000)))

TOO_LARGE = {
    (
        "benchmark.num_tasks=1000000000000000000",
    ): "benchmark.num_tasks: must be at most 100,000, not 1000000000000000000",
    ("net.num_outputs=1000000000000",): "net.num_outputs: must be at most 1,000,000",
    ("net={name: hopfield_mlp, width: 900000}", "scenario=GG"): "net: a net of 810,",
    ("training.num_batches=1000000000",): "training.num_batches: must be at most 10,000,000",
    ("training.num_batches=10000000", "training.batch_size=1000"): "training.num_batches: 10,000,000 batches of 1,000",
    ("training.batch_size=1000000000",): "training.batch_size: must be at most 1,000,000",
    ("training.learning_rate=1e308",): "command line: training.learning_rate: must be a number from -1e+30 to 1e+30",
    ("training.learning_rate=1e20",): "training.learning_rate: must be at most 1e+06",
    ("inference.strict_images=1000000000",): "inference.strict_images: must be at most 1,000,000",
    ("inference.decision_group=1000000000",): "inference.decision_group: must be at most 1,000,000",
    ("resources.threads=1000",): "resources.threads: must be at most 512, not 1000",
    ("resources.num_workers=1000000",): "resources.num_workers: must be at most 10,000",
    ("resources.cache_gb=1e20",): "resources.cache_gb: must be at most 1,000,000",
    ("commit_every=1e20",): "commit_every: must be at most 31,536,000",
    ("budget.num_masks=1000000000", *NNS): "budget.num_masks: must be at most 100,000",
    (
        "benchmark.num_tasks=100000",
        *NNS,
    ): "stream.segment_batches: 100,000 tasks of 1,000 segments are more than 1,000,000",
    (f"evaluation.at=[{LIST}]",): "evaluation.at: lists 3,000 values, but the maximum is 1,000",
    ("seeds=[" + ", ".join(map(str, range(11000))) + "]",): "command line: seeds: '[0, 1",
    (
        "grid.training.learning_rate=[" + LIST + "]",
        "seeds=[" + LIST + "]",
    ): "with 3,000 values here, the sweep has 9,000,000",
    ("benchmark.num_tasks=100000", "seeds=[" + LIST + "]"): "benchmark.num_tasks: the first",
    (
        "search={space: {net.num_outputs: {low: 20, high: 90}}, num_trials: 1000000000}",
    ): "num_trials: must be at most 10,000",
    ("search={space: {net.num_outputs: {low: 20, high: 90}}, num_trials: 9999}",): "the space has only about 71",
    (f"search={{space: {{net.num_outputs: [{LIST}]}}}}",): "lists 3,000 choices, but the maximum is 1,000",
    (
        "search={space: {training.learning_rate: {low: 1.0, high: 1.001}}, num_trials: 9999}",
    ): "the space has only about 1",
    (f"variants={BOMB}",): "is not a valid YAML value",
    ("benchmark.base={name: digits, enlarge: 1000000}",): "benchmark.base.enlarge: must be at most 32",
    ("net.num_outputs=0x" + "f" * 6000,): "net.num_outputs: a number of 7225 digits does not fit into 64 bits",
}
"""Overrides of a small sweep that ask for too much, and what the message must contain."""


@pytest.mark.parametrize("overrides", TOO_LARGE, ids=lambda overrides: overrides[0][:40])
def test_a_size_beyond_its_limit_is_refused_within_two_seconds(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path], overrides: tuple[str, ...]
) -> None:
    began = time.process_time()
    found = supsup("plan", sweep_file(), *overrides)
    assert time.process_time() - began < 2
    assert (found.code, len(found.err.splitlines())) == (2, 1), found
    assert TOO_LARGE[overrides] in found.err
    assert len(found.err) < 2100


def test_a_large_sweep_is_planned_in_little_time(sweep_file: Callable[..., Path]) -> None:
    file = sweep_file(grid={"training.learning_rate": [0.1 * number for number in range(1, 21)]}, seeds=list(range(25)))
    began = time.process_time()
    assert len(open_sweep(file, []).runs()) == 500
    assert time.process_time() - began < 3  # 0.4 s on an idle machine; without the cache of merged sections 1.5 s


def test_runs_are_counted_before_all_are_made(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_groups, "_MOST_PLANNED", 20)
    assert len(open_sweep(sweep_file(seeds=[0, 1]), []).runs()) == 2  # 3 tasks and at most 4 + 3 evaluations each
    with pytest.raises(InputError, match="the first 3 runs have 30 tasks, segments and evaluations"):
        open_sweep(sweep_file(seeds=list(range(9))), []).runs()


def test_a_net_that_does_not_fit_into_memory_is_refused_before_it_is_made(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cost_estimate.environment, "memory_bytes", lambda: 1_000_000)
    for command in (["plan", sweep_file()], ["sweep", sweep_file(), "--local"]):
        found = supsup(*command)
        assert found.code == 2
        assert "GB of memory (52,200 weights, " in found.err
        assert "lower net.num_outputs" in found.err
    assert not (tmp_path / "runs").exists()
