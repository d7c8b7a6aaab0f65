"""A run exported as an MLflow model gives the same answers in another process as in its evaluation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.base.output_folder import OutputFolder
from orchestrator.results.loaded_run import load_run
from orchestrator.sweeps.lookup import read_state
from orchestrator.sweeps.sweep import find_sweep
from supsup_core.evaluation.counts import ProtocolCounts
from supsup_core.evaluation.protocol import order_of_test_images

Command = Callable[..., Any]

ANSWERS = """
import json, sys
import mlflow, numpy as np, torch
torch.set_num_threads(1)
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
found = model.predict(np.load(sys.argv[3]), params=json.loads(sys.argv[4]))
print(json.dumps([found["label"].tolist(), found["mask"].tolist()]))
"""


def counts(output: OutputFolder) -> dict[int, ProtocolCounts]:
    """Returns, from the ledger, the evaluation counts of each task after the last task."""
    (group,) = find_sweep(output, None).folder.groups()
    facts = [row.event.facts for row in read_state(group).evaluated.values()]
    return {found.task: found.results["paper"] for found in facts}


@pytest.mark.parametrize(("scenario", "params"), [("GNu", {}), ("GG", {"task": 1})])
def test_a_model_loaded_in_another_process_answers_as_in_its_evaluation(
    scenario: str, params: dict[str, int], supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    file = sweep_file(scenario=scenario, evaluation={"at": [3]})
    assert supsup("sweep", file, "--local").code == 0
    found = supsup("export", f"small {scenario}")
    assert found.code == 0, found.err
    assert "warning" not in found.err.lower()
    uri, address = re.search(r"set_tracking_uri\('(.*)'\)", found.out), re.search(r"load_model\('(.*)'\)", found.out)
    assert uri
    assert address
    sweep = find_sweep(OutputFolder(tmp_path / "runs"), None)
    (group,) = sweep.plan()
    loaded = load_run(sweep, group, group.runs[0])
    task = loaded.experiment.benchmark.task(1, loaded.dataset, 0)
    x, y = task.test_batch(order_of_test_images(task, 1, 0))
    np.save(tmp_path / "x.npy", x.numpy())
    command = [sys.executable, "-c", ANSWERS, uri[1], address[1], str(tmp_path / "x.npy"), json.dumps(params)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    labels, masks = json.loads(done.stdout.splitlines()[-1])
    expected = counts(OutputFolder(tmp_path / "runs"))[1]
    assert sum(label == target for label, target in zip(labels, y.tolist(), strict=True)) == expected.correct
    assert {str(mask) for mask in masks} == set(expected.confusion)
    assert not list((tmp_path / "runs" / "mlflow").rglob("*.pkl"))
