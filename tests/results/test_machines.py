"""A sweep that is resumed on another machine kind: which results say so, and where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from orchestrator.base.failpoints import set_failpoint
from orchestrator.base.output_folder import OutputFolder
from orchestrator.coordination import task_checkpoint
from orchestrator.records import this_machine
from orchestrator.records.machine_kind import MachineKind, Machines
from orchestrator.results.exported_run import ExportedRun, export_run
from orchestrator.results.loaded_run import load_run
from orchestrator.results.machines import ComputedOn, computed_on
from orchestrator.sweeps.lookup import read_states
from orchestrator.sweeps.sweep import Sweep, find_sweep
from orchestrator.tracking.mlflow_address import tracking_uri_of
from tests.records.samples import ONE_KIND, OTHER_KIND

Command = Callable[..., Any]

BOTH = (ONE_KIND, OTHER_KIND)
WORDS = "only within floating-point tolerance"


@pytest.fixture
def on_kind(monkeypatch: pytest.MonkeyPatch) -> Callable[[MachineKind], None]:
    """Returns a function that makes this machine one of another kind, as a resume on another machine would."""
    return lambda kind: monkeypatch.setattr(this_machine, "this_machine", lambda *_: kind)


def interrupt_in_the_second_task() -> None:
    """Interrupts a sweep with checkpoints after every batch when the second task of the first seed has two."""
    tasks: dict[str, None] = {}

    def die(subject: object) -> None:
        key, _, batches = str(subject).partition("-")
        if batches:
            tasks[key] = None
            if len(tasks) == 2 and int(batches) == 3:
                raise KeyboardInterrupt

    set_failpoint("writing_artifact", die)


def mixed_sweep(supsup: Command, file: Path, on_kind: Callable[[MachineKind], None]) -> Any:
    """Runs a sweep of two seeds that is interrupted in the second task of the first seed, and resumed on another
    machine kind. Returns the result of the resume."""
    on_kind(ONE_KIND)
    interrupt_in_the_second_task()
    try:
        assert supsup("sweep", file, "--local").code == 130
    finally:
        set_failpoint("writing_artifact", None)
    on_kind(OTHER_KIND)
    return supsup("resume", "--local")


def machines_in_store(sweep: Sweep) -> dict[tuple[int, int], Machines]:
    """Returns the machine kinds in the facts of every trained task, by seed and task."""
    return {
        (group.experiment.seed, shard.task): sweep.store.get(shard.key).facts.machines
        for group in sweep.plan()
        for shard in group.shards
    }


def check_told(supsup: Command, sweep: Sweep) -> None:
    """Asserts that status, report and MLflow tags name the run of both kinds, and only this run."""
    found = supsup("status").out
    assert found.count("MIXED  computed on 2 machine kinds") == 1
    assert WORDS in found
    assert str(ONE_KIND) in found
    groups = json.loads(supsup("status", sweep.sweep_id, "--json").out)["groups"]
    kinds = {group["seed"]: [kind["processor"] for kind in group["machines"]] for group in groups}
    assert kinds == {0: [kind.processor for kind in BOTH], 1: [OTHER_KIND.processor]}
    assert groups[0]["machines"][0]["kernels"]["matmul"] == "oneDNN"
    assert groups[0]["machines"][0]["torch"] == "2.13.0+cpu"
    name = "GNu one_shot entropy seed=0"
    markdown = (sweep.folder.report / "report.md").read_text()
    assert f"**More than one machine kind.** {name}. Note: results of one machine kind" in markdown
    html = (sweep.folder.report / "report.html").read_text()
    assert f"<strong>More than one machine kind:</strong> {name}. Note:" in html
    assert f"<li>{ONE_KIND}</li><li>{OTHER_KIND}</li>" in html
    assert f"Computed on one machine kind: GNu one_shot entropy seed=1 ({OTHER_KIND})" in html
    client = mlflow.MlflowClient(tracking_uri_of(sweep))
    runs = client.search_runs([client.get_experiment_by_name(sweep.config.name).experiment_id])
    assert {run.info.run_name: run.data.tags["supsup.mixed_machines"] for run in runs} == {
        sweep.sweep_id: "true", "train seed=0": "true", name: "true",
        "train seed=1": "false", "GNu one_shot entropy seed=1": "false",
    }  # fmt: skip
    told = {run.data.tags["supsup.machines"] for run in runs}
    assert told == {f"{ONE_KIND} | {OTHER_KIND}", str(OTHER_KIND)}


def test_a_sweep_resumed_on_another_machine_kind_says_so_everywhere(
    supsup: Command,
    sweep_file: Callable[..., Path],
    on_kind: Callable[[MachineKind], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(task_checkpoint, "COST_SHARE", 0)
    found = mixed_sweep(supsup, sweep_file(seeds=[0, 1], training={"num_batches": 5}, commit_every=1e-9), on_kind)
    assert found.code == 0, found.err
    warnings = [line for line in found.out.splitlines() if line.startswith("WARNING")]
    assert len(warnings) == 1
    assert warnings[0].startswith("WARNING  GNu one_shot entropy seed=0: computed on 2 machine kinds; results of one ")

    sweep = find_sweep(OutputFolder(tmp_path / "runs"), None)
    assert machines_in_store(sweep) == {
        (0, 0): (ONE_KIND,), (0, 1): BOTH, (0, 2): (OTHER_KIND,),
        (1, 0): (OTHER_KIND,), (1, 1): (OTHER_KIND,), (1, 2): (OTHER_KIND,),
    }  # fmt: skip
    groups, states = sweep.plan(), read_states(sweep.folder, {})
    first = states[groups[0].group_id]
    evaluated = {key: row.event.facts.machines for key, row in first.evaluated.items()}
    points = {n: {evaluated[key] for key in row.event.keys} for (_, n), row in first.points.items()}
    assert points == {1: {(ONE_KIND,)}, 3: {BOTH}}
    assert computed_on(groups, states) == [
        ComputedOn(("GNu one_shot entropy seed=0",), BOTH), ComputedOn(("GNu one_shot entropy seed=1",), (OTHER_KIND,)),
    ]  # fmt: skip
    check_told(supsup, sweep)
    assert supsup("report").code == 0  # by a later process
    check_told(supsup, sweep)
    assert supsup("fsck").code == 0

    (tmp_path / "exported").mkdir()
    export_run(sweep, load_run(sweep, groups[0], groups[0].runs[0]), tmp_path / "exported")
    assert ExportedRun(tmp_path / "exported").provenance.machines == BOTH
