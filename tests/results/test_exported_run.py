"""An exported run: one folder that gives the same answers as the run. tests/integration serves one with MLflow."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.base.sealed_json import seal, unseal
from orchestrator.results.exported_run import ExportedRun, export_run
from orchestrator.results.loaded_run import load_run
from orchestrator.sweeps.sweep import Sweep, open_sweep
from supsup_core.errors import CorruptError, InputError
from tests.local_runs import run_sweep


@pytest.fixture
def sweep(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    """A finished sweep with a run in GG (the task is given) and a run in GNu (the task is inferred)."""
    monkeypatch.chdir(tmp_path)
    found = open_sweep(sweep_file(grid={"scenario": ["GG", "GNu"]}, evaluation={"at": [3]}), [])
    run_sweep(found)
    return found


def exported(sweep: Sweep, number: int, folder: Path) -> Path:
    """Exports a run of the sweep, and returns the folder. number: the run's index in the sweep."""
    (group,) = sweep.plan()
    folder.mkdir()
    export_run(sweep, load_run(sweep, group, group.runs[number]), folder)
    return folder


@pytest.mark.parametrize(("number", "task"), [(0, 1), (1, None)])
def test_an_exported_run_answers_as_the_run_does(sweep: Sweep, number: int, task: int | None, tmp_path: Path) -> None:
    (group,) = sweep.plan()
    loaded = load_run(sweep, group, group.runs[number])
    x, _ = loaded.experiment.benchmark.task(1, loaded.dataset, 0).test_batch(torch.arange(128))
    labels, masks = ExportedRun(exported(sweep, number, tmp_path / "exported")).answer(x, task)
    assert labels.shape == masks.shape == (128,)
    (mask,) = set(masks.tolist())  # one inference for the whole group of 128 images
    assert task in (mask, None)
    wanted = loaded.learner.logits(x, mask)[:, : loaded.learner.num_labels].argmax(1)
    assert labels.tolist() == wanted.tolist()


def test_an_incomplete_folder_and_an_unknown_task_are_refused(sweep: Sweep, tmp_path: Path) -> None:
    folder = exported(sweep, 0, tmp_path / "exported")
    run = ExportedRun(folder)
    for task in (None, 7):
        with pytest.raises(InputError, match="must be a number from 0 to 2"):
            run.answer(torch.zeros(2, 64), task)
    (folder / "learned.safetensors").write_bytes((folder / "learned.safetensors").read_bytes()[:-1])
    with pytest.raises(CorruptError, match="run `supsup export` again"):
        ExportedRun(folder)


DAMAGES = {
    "another format": (lambda node: seal({**node, "format": 99}), "has format 99"),
    "a key too few": (lambda node: seal({key: node[key] for key in node if key != "masks"}), "'masks'"),
    "a changed value": (lambda node: seal(node).replace(b'"seed": 0', b'"seed": 1'), "does not match its SHA-256"),
    "other tensors": (lambda node: seal({**node, "learned_sha256": "0" * 64}), "learned.safetensors does not match"),
    "a module elsewhere": (lambda node: seal({**node, "imports": ["../elsewhere.py"]}), "a module outside this folder"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_of_another_version_or_with_damaged_files_is_refused(
    sweep: Sweep, tmp_path: Path, damage: str
) -> None:
    folder = exported(sweep, 0, tmp_path / "exported")
    file = folder / "experiment.json"
    change, words = DAMAGES[damage]
    node, is_sealed = unseal(file.read_bytes())
    assert is_sealed
    file.write_bytes(change(node))
    with pytest.raises(CorruptError, match=words):
        ExportedRun(folder)


def test_a_folder_of_an_earlier_version_without_checksums_is_read(sweep: Sweep, tmp_path: Path) -> None:
    folder = exported(sweep, 0, tmp_path / "exported")
    file = folder / "experiment.json"
    node, _ = unseal(file.read_bytes())
    del node["learned_sha256"], node["provenance"]
    file.write_text(json.dumps(node, indent=1))
    assert ExportedRun(folder).experiment.num_tasks == 3
    file.unlink()
    with pytest.raises(CorruptError, match="run `supsup export` again"):
        ExportedRun(folder)


def test_a_given_task_is_refused_if_the_scenario_infers_it(sweep: Sweep, tmp_path: Path) -> None:
    run = ExportedRun(exported(sweep, 1, tmp_path / "exported"))
    with pytest.raises(InputError, match="remove this argument"):
        run.answer(torch.zeros(2, 64), 1)


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
from orchestrator.base.output_folder import OutputFolder
from orchestrator.results.exported_run import ExportedRun, export_run
from orchestrator.results.loaded_run import load_run
from orchestrator.sweeps.sweep import find_sweep
sweep = find_sweep(OutputFolder(Path(sys.argv[1])), None)
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


def test_an_export_contains_user_modules_and_their_imports(sweep_file: Callable[..., Path], tmp_path: Path) -> None:
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
