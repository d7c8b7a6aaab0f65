"""A search on real Ray: ASHA stops bad trials, a resumed search keeps them stopped, and best.yaml runs as a sweep."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from orchestrator.base.output_folder import OutputFolder
from orchestrator.sweeps.lookup import read_states
from tests.outputs import wait_for

Call = Callable[..., tuple[int, str, str]]

SEARCH: dict[str, Any] = {
    "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 8},
    "training": {"num_batches": 60},
    "inference": {"strict_images": 0},
    "evaluation": {"at": [8]},
    "search": {"space": {"training.learning_rate": [1e-3, 1e-6, 3e-4, 1e-7]}, "reduction": 2},
    "resources": {"num_workers": 1},
}
"""A search with four trials, two of which have a learning rate that is too small to learn."""


def _stopped(output: Path) -> dict[str, int]:
    """Returns the number of shards that each stopped trial had trained."""
    folders = OutputFolder(output).sweeps()
    states = read_states(folders[0], {}) if folders else {}
    return {group_id: len(state.trained) for group_id, state in states.items() if state.status == "stopped"}


def test_a_search_on_ray_stops_bad_trials_and_writes_the_best_configuration(
    call: Call, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    changes = {
        "benchmark": {**SEARCH["benchmark"], "num_tasks": 3},
        "training": {"num_batches": 30},
        "evaluation": {"at": [3]},
        "search": {"space": {"training.learning_rate": [1e-3, 1e-7, 1e-6]}, "reduction": 2},
    }
    code, out, err = call("sweep", sweep_file(**SEARCH | changes))
    assert code == 0, err
    (report,) = tmp_path.glob("runs/sweeps/*/report")
    trials = pd.read_csv(report / "search.csv")
    assert trials["ended"].tolist() == ["done", "stopped", "stopped"]
    assert trials["tasks"].tolist() == [3, 1, 1]
    assert len(_stopped(tmp_path / "runs")) >= 1  # a trial that is judged late may be complete
    assert trials["training.learning_rate"][0] == 1e-3
    assert str(report / "best.yaml").removeprefix(f"{tmp_path}/") in out
    written = yaml.safe_load((report / "best.yaml").read_text())
    assert written["training"]["learning_rate"] == trials["training.learning_rate"][0]
    assert "search" not in written


@pytest.mark.long
def test_a_stopped_trial_stays_stopped_and_the_best_configuration_runs_as_a_sweep(
    launch: Callable[..., Any], call: Call, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    process = launch("sweep", sweep_file(**SEARCH))
    stopped = wait_for(lambda: _stopped(tmp_path / "runs"))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code, out, err = call("resume")
    assert code == 0, err
    after = _stopped(tmp_path / "runs")
    assert {group_id: after[group_id] for group_id in stopped} == stopped
    (report,) = tmp_path.glob("runs/sweeps/*/report")
    trials = pd.read_csv(report / "search.csv")
    assert sorted(trials["ended"].unique()) == ["done", "stopped"]
    assert trials["training.learning_rate"][0] in (1e-3, 3e-4)  # ASHA never stops the first trial that reports
    assert (trials[trials["ended"] == "stopped"]["tasks"] < 8).all()
    code, out, _ = call("status")
    assert out.splitlines()[0].endswith(": done")
    code, out, err = call("resume")
    assert code == 0, err
    assert _stopped(tmp_path / "runs") == after

    best = report / "best.yaml"
    written = yaml.safe_load(best.read_text())
    assert written["training"]["learning_rate"] == trials["training.learning_rate"][0]
    assert "search" not in written
    code, out, err = call("sweep", best, "--local", "benchmark.num_tasks=2")
    assert code == 0, err
    (found,) = tmp_path.glob("runs/sweeps/small_best-*/report/final.csv")
    assert pd.read_csv(found)["tasks"].tolist() == [2]
