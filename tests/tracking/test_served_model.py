"""The model that MLflow serves gives the same answers as the exported run."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.results.exported_run import ExportedRun, export_run
from orchestrator.results.loaded_run import load_run
from orchestrator.sweeps.sweep import Sweep
from supsup_core.errors import InputError
from tests.local_runs import run_sweep


@pytest.fixture
def exported(empty: Sweep, tmp_path: Path) -> list[Path]:
    """Exported runs in GG (the task is given) and in GNu (the task is inferred)."""
    run_sweep(empty)
    (group,) = empty.plan()
    folders = []
    for run in group.runs:
        folder = tmp_path / run.label.split()[0]
        folder.mkdir()
        export_run(empty, load_run(empty, group, run), folder)
        folders.append(folder)
    return folders


def model_of(folder: Path) -> Any:
    """Loads the exported folder as an MLflow model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MLflow warns about type hints
        from orchestrator.tracking.served_model import LearnedModel
    model = LearnedModel()
    model.load_context(SimpleNamespace(artifacts={"learned": str(folder)}))
    return model


def test_the_model_answers_as_the_exported_run_does(exported: list[Path]) -> None:
    given, inferred = exported
    images = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    for folder, params, task in ((given, {"task": 1}, 1), (inferred, None, None), (inferred, {"task": -1}, None)):
        labels, masks = ExportedRun(folder).answer(torch.from_numpy(images), task)
        found = model_of(folder).predict(None, images, params)
        assert found["label"].tolist() == labels.tolist()
        assert found["mask"].tolist() == masks.tolist()
    assert set(model_of(given).predict(None, images, {"task": 2})["mask"]) == {2}


def test_a_request_must_contain_the_task_if_the_scenario_gives_it(exported: list[Path]) -> None:
    images = np.zeros((2, 64), np.float32)
    with pytest.raises(InputError, match="must be a number from 0 to 2"):
        model_of(exported[0]).predict(None, images)
    with pytest.raises(InputError, match="remove this argument"):
        model_of(exported[1]).predict(None, images, {"task": 1})
