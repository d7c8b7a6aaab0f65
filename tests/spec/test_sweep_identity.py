"""What determines the ids of sweeps and the content keys of results, and what a later version may add to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import orchestrator
import supsup_core
from orchestrator.spec.experiment import EvaluationConfig
from orchestrator.spec.search_space import Search
from orchestrator.spec.sweep_identity import sweep_identity
from orchestrator.sweeps.sweep import open_sweep
from supsup_core.datasets import BASES
from supsup_core.evaluation.protocol import Inference
from supsup_core.later_fields import is_added_later
from supsup_core.methods import METHODS
from supsup_core.nets import NETS
from supsup_core.nns.allocation_tests import ALLOCATION_TESTS
from supsup_core.nns.allocator import Budget
from supsup_core.nns.streams import Stream
from supsup_core.registry import Registry
from supsup_core.tasks import BENCHMARKS
from supsup_core.training.loop import TrainingRecipe
from tests.outputs import artifacts

DATA = Path(__file__).parents[1] / "data"


def fields_of_identity() -> dict[str, list[str]]:
    """Returns the fields of each config class that are part of identities even at their defaults, by class name."""
    classes: list[type] = [TrainingRecipe, Inference, EvaluationConfig, Stream, Budget, Search]
    registries: tuple[Registry[type], ...] = (METHODS, NETS, BENCHMARKS, BASES, ALLOCATION_TESTS)  # type: ignore[assignment]  # of several kinds
    for registry in registries:
        classes += [registry[name] for name in registry.names()]
    own = [cls for cls in classes if cls.__module__.split(".")[0] in ("orchestrator", "supsup_core")]
    return {cls.__name__: sorted(one.name for one in fields(cls) if not is_added_later(one)) for cls in own}


def test_a_new_field_of_an_existing_class_is_declared_with_added_later() -> None:
    """Otherwise results that exist would get other keys, and all tasks would be trained again."""
    wanted: dict[str, list[str]] = json.loads((DATA / "identity_fields.json").read_text())
    found = fields_of_identity()
    assert {name: found[name] for name in wanted} == wanted
    assert set(found) == set(wanted), "add the new class to tests/data/identity_fields.json"


def test_a_sweep_id_does_not_depend_on_resources_and_outputs(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("benchmark: {name: permuted, base: digits, num_tasks: 2}\n")
    sweep = open_sweep(file, [f"output={tmp_path}"])
    other = open_sweep(file, [f"output={tmp_path / 'other'}", "resources.num_workers=7", "commit_every=1"])
    assert sweep.sweep_id == other.sweep_id != open_sweep(file, ["training.momentum=0.5"]).sweep_id
    assert sweep_identity(sweep.config)["training"]["momentum"] == 0.0


def test_a_sweep_made_before_a_key_was_added_is_continued_with_its_results(tmp_path: Path) -> None:
    """The added key stands in a copy of the program, which resumes an output of version 0.1.0."""
    code = tmp_path / "code"
    for package in (orchestrator, supsup_core):
        (folder,) = package.__path__
        shutil.copytree(folder, code / Path(folder).name, ignore=shutil.ignore_patterns("__pycache__"))
    recipe = code / "supsup_core" / "training" / "loop.py"
    text = recipe.read_text()
    marker = "    momentum: float = 0.0\n"
    assert text.count(marker) == 1
    text = text.replace(marker, f"{marker}    label_smoothing: float = added_later(0.0)\n")
    recipe.write_text(
        text.replace("import torch\n", "import torch\nfrom supsup_core.later_fields import added_later\n", 1)
    )
    output = tmp_path / "runs"
    shutil.copytree(DATA / "outputs_of_0_1" / "done_tasks", output)
    before, sweeps = artifacts(output), sorted(path.name for path in (output / "sweeps").iterdir())
    environment = {**os.environ, "PYTHONPATH": str(code), "HOME": str(tmp_path)}
    for arguments in (["status"], ["resume", "--local"], ["gc", "--delete"], ["fsck"]):
        command = [sys.executable, "-m", "orchestrator.cli", *arguments]
        found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        assert found.returncode == 0, found.stderr
    assert artifacts(output) == before
    assert sorted(path.name for path in (output / "sweeps").iterdir()) == sweeps
    (record,) = output.glob("sweeps/*/sweep.json")
    assert json.loads(record.read_text())["config"]["training"]["label_smoothing"] == 0.0
