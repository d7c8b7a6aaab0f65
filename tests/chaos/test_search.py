"""A search with ASHA that is killed at random moments ranks and stops its trials like an undisturbed search."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.base.output_folder import OutputFolder
from orchestrator.records.group_state import GroupState
from orchestrator.sweeps.lookup import read_states
from tests.integration.test_search import SEARCH
from tests.outputs import artifacts, kill_all, run_statuses, trained, wait_for

Call = Callable[..., tuple[int, str, str]]


def states(output: Path) -> dict[str, GroupState]:
    """Returns the states of all trials, by the ids of their training groups."""
    folders = OutputFolder(output).sweeps()
    return read_states(folders[0], {}) if folders else {}


def points(output: Path) -> dict[Any, Any]:
    """Returns the metrics of all evaluation points of all trials."""
    return {place: row.event.metrics for state in states(output).values() for place, row in state.points.items()}


def ranking(output: Path) -> str:
    """Returns the texts of the search's table of trials, and of the sweep file of its best trial."""
    (folder,) = output.glob("sweeps/*/report")
    return (folder / "search.csv").read_text() + (folder / "best.yaml").read_text()


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_search_ends_with_the_same_trials_stopped_and_the_same_best_trial(
    call: Call, launch: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path, seed: int
) -> None:
    """A trial that cannot be judged yet trains on, so the searches may have different points after a rung."""
    file = sweep_file(**{**SEARCH, "training": {"num_batches": 200}})
    assert call("sweep", file, "output=wanted")[0] == 0
    drawn, output = random.Random(seed), tmp_path / "runs"
    stopped: dict[str, int] = {}
    for number in range(3):
        process = launch("resume") if any(output.glob("sweeps/*/sweep.json")) else launch("sweep", file)
        target = len(trained(output)) + drawn.randint(1, 2)
        wait_for(lambda wanted=target: len(trained(output)) >= wanted)
        time.sleep(drawn.uniform(0, 1))
        assert process.poll() is None, "the search ended before it was killed"
        kill_all(process.pid)
        process.communicate()
        now = {group: len(state.trained) for group, state in states(output).items() if state.stopped is not None}
        print(f"kill {number}: {len(trained(output))} tasks trained, {len(now)} trials stopped", flush=True)
        assert {group: now.get(group) for group in stopped} == stopped
        stopped = now
    code, out, err = call("resume")
    assert code == 0, out + err
    assert max(Counter(row["key"] for row in trained(output)).values()) == 1
    found, wanted = points(output), points(tmp_path / "wanted")
    both = found.keys() & wanted.keys()
    assert {place: found[place] for place in both} == {place: wanted[place] for place in both}
    ours, theirs = artifacts(output), artifacts(tmp_path / "wanted")
    assert len(ours.keys() & theirs.keys()) > 8
    assert not {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}
    assert {state.status for state in states(output).values()} <= {"done", "stopped"}
    assert ranking(output) == ranking(tmp_path / "wanted").replace("/wanted", "/runs")
    assert run_statuses(output, "small") == {"FINISHED"}
