"""A run exported as an MLflow model answers in another process as it did when it was tested."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import LedgerReader
from orchestrator.results.exported_run import ExportedRun, export_run
from orchestrator.results.loaded_run import load_run
from orchestrator.sweeps.sweep import find_sweep
from supsup_core.errors import CorruptError, InputError
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


def counts(output: Path) -> dict[int, dict[str, Any]]:
    """The counts of each task after the last, as the ledger has them."""
    sweep = find_sweep(output, None)
    (group,) = sweep.plan()
    with LedgerReader(sweep.ledger_path(group.group_id)) as reader:
        rows = [row.payload["facts"] for row in GroupState().apply(reader.rows()).evaluated.values()]
    return {facts["task"]: facts["results"]["paper"] for facts in rows}


@pytest.mark.parametrize(("scenario", "params"), [("GNu", {}), ("GG", {"task": 1})])
def test_a_model_loaded_elsewhere_answers_as_the_evaluation_did(
    scenario: str, params: dict[str, int], supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    import numpy as np

    file = sweep_file(scenario=scenario, evaluation={"at": [3]})
    assert supsup("sweep", file, "--local").code == 0
    found = supsup("export", f"small {scenario}")
    assert found.code == 0, found.err
    assert "warning" not in found.err.lower()
    uri, address = re.search(r"set_tracking_uri\('(.*)'\)", found.out), re.search(r"load_model\('(.*)'\)", found.out)
    assert uri
    assert address
    sweep = find_sweep(tmp_path / "runs", None)
    (group,) = sweep.plan()
    loaded = load_run(sweep, group, group.runs[0])
    task = loaded.experiment.benchmark.task(1, loaded.dataset, 0)
    x, y = task.test_batch(order_of_test_images(task, 1, 0))
    np.save(tmp_path / "x.npy", x.numpy())
    command = [sys.executable, "-c", ANSWERS, uri[1], address[1], str(tmp_path / "x.npy"), json.dumps(params)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    labels, masks = json.loads(done.stdout.splitlines()[-1])
    expected = counts(tmp_path / "runs")[1]
    assert sum(label == target for label, target in zip(labels, y.tolist(), strict=True)) == expected["correct"]
    assert {str(mask) for mask in masks} == set(expected["confusion"])
    assert not list((tmp_path / "runs" / "mlflow").rglob("*.pkl"))


def test_a_folder_that_is_not_whole_and_a_task_that_is_not_known_are_refused(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    assert supsup("sweep", sweep_file(scenario="GG", evaluation={"at": [3]}), "--local").code == 0
    sweep = find_sweep(tmp_path / "runs", None)
    (group,) = sweep.plan()
    folder = tmp_path / "exported"
    folder.mkdir()
    export_run(sweep, load_run(sweep, group, group.runs[0]), folder)
    run = ExportedRun(folder)
    for task in (None, 7):
        with pytest.raises(InputError, match="say which, 0 to 2"):
            run.answer(torch.zeros(2, 64), task)
    (folder / "learned.safetensors").write_bytes((folder / "learned.safetensors").read_bytes()[:-1])
    with pytest.raises(CorruptError, match="export it again"):
        ExportedRun(folder)


NETS = """
from dataclasses import dataclass
from helpers_of_mine import WIDTH
from supsup_core.nets import NETS
from supsup_core.nets.mlp import MLP

@NETS.register("narrow")
@dataclass(frozen=True, kw_only=True)
class Narrow(MLP):
    @property
    def hidden(self):
        return (WIDTH,)
"""

EXPORTS = """
import sys
from pathlib import Path
from orchestrator.results.exported_run import ExportedRun, export_run
from orchestrator.results.loaded_run import load_run
from orchestrator.sweeps.sweep import find_sweep
sweep = find_sweep(Path(sys.argv[1]), None)
(group,) = sweep.plan()
export_run(sweep, load_run(sweep, group, group.runs[0]), Path(sys.argv[2]))
ExportedRun(Path(sys.argv[2]))  # beside the module that it was made from
"""

LOADS = """
import sys
from pathlib import Path
from orchestrator.results.exported_run import ExportedRun
print(type(ExportedRun(Path(sys.argv[1])).experiment.net).__name__)
"""


def test_a_users_modules_go_along_with_what_they_import(sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "nets_of_mine.py").write_text(NETS)
    (tmp_path / "mine" / "helpers_of_mine.py").write_text("WIDTH = 20\n")
    changes = {"imports": ["mine/nets_of_mine.py"], "net": {"name": "narrow", "num_outputs": 12}}
    file = sweep_file(**changes, scenario="GG", evaluation={"at": [3]})
    output, folder = tmp_path / "runs", tmp_path / "exported"
    folder.mkdir()

    def python(*arguments: object) -> str:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    python("-m", "orchestrator.cli", "sweep", file, "--local", f"output={output}")
    python("-c", EXPORTS, output, folder)
    shutil.rmtree(tmp_path / "mine")
    assert python("-c", LOADS, folder).strip() == "Narrow"
