"""Runs loaded from their output give the same answers as in their evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.base.output_folder import OutputFolder
from orchestrator.records.artifact_store import CorruptArtifactError
from orchestrator.results.loaded_run import LoadedRun, load_run
from orchestrator.sweeps.lookup import read_state
from orchestrator.sweeps.sweep import Sweep, find_sweep
from orchestrator.sweeps.training_groups import Group
from supsup_core.errors import InputError
from supsup_core.evaluation.counts import ProtocolCounts
from supsup_core.evaluation.protocol import evaluate
from tests.nns.test_fork import NNS

Command = Callable[..., Any]


def the_sweep(output: Path) -> tuple[Sweep, Group]:
    sweep = find_sweep(OutputFolder(output), None)
    (group,) = sweep.plan()
    return sweep, group


def answers_again(loaded: LoadedRun) -> list[ProtocolCounts]:
    """Evaluates every learned task with the loaded learner, and returns the counts."""
    experiment = loaded.experiment
    found = []
    for number, masks in zip(loaded.tasks, loaded.masks, strict=True):
        task = experiment.benchmark.task(number, loaded.dataset, experiment.seed)
        decisions = evaluate(
            loaded.learner, task, number, experiment.scenario, experiment.inference, experiment.seed
        )  # fmt: skip
        found.append(decisions["paper"].counts(masks))
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluation": {"at": [3]}},
        {"evaluation": {"at": [3]}, "method": {"name": "batch_e"}, "scenario": "GG"},
        {**NNS, "evaluation": {"at": [4]}},
        {
            **NNS,
            "evaluation": {"at": [2]},
            "stream": {**NNS["stream"], "order": "recurring", "visits": 3},
            "commit_every": 0.001,
        },
    ],
    ids=["SupSup", "shared tensors", "NNs", "NNs, its masks trained on since"],
)
def test_a_loaded_run_answers_as_in_its_evaluation(
    changes: dict[str, Any], supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    assert supsup("sweep", sweep_file(**changes), "--local").code == 0
    sweep, group = the_sweep(tmp_path / "runs")
    torch.set_num_threads(1)
    loaded = load_run(sweep, group, group.runs[0])
    state = read_state(sweep.folder.group(group.group_id))
    _, last = max(state.points)
    results = state.results_of(state.points[group.runs[0].run_id, last].event.keys)
    assert answers_again(loaded) == [results[task]["paper"] for task in sorted(results)]


def test_an_untrained_or_damaged_run_is_refused(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    file = sweep_file(evaluation={"at": [3]})
    assert supsup("sweep", file, "--local").code == 0
    sweep, group = the_sweep(tmp_path / "runs")
    for artifact in (tmp_path / "runs" / "store").glob("??/*.safetensors"):
        blob = bytearray(artifact.read_bytes())
        blob[-1] ^= 1
        artifact.write_bytes(blob)
    with pytest.raises(CorruptArtifactError):
        load_run(sweep, group, group.runs[0])
    sweep.folder.group(group.group_id).ledger.unlink()
    with pytest.raises(InputError, match="has not started; run `supsup resume"):
        load_run(sweep, group, group.runs[0])
