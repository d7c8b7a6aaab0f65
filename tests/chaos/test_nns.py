"""An NNs run that is killed at planned moments ends with the same bits as an undisturbed run."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.failpoints import POINTS
from tests.outputs import nns_science, run_statuses, scientific_points, the_ledger

Call = Callable[..., tuple[int, str, str]]
Kill = dict[str, Any]


def sweep(num_tasks: int, **changes: Any) -> dict[str, Any]:
    """Returns the settings of a run with tasks in blocks, one commit per second, and five rounds per task."""
    return {
        "scenario": "NNs",
        "benchmark": {"name": "permuted", "base": "digits", "num_tasks": num_tasks},
        "training": {"num_batches": 200, "learning_rate": 1e-3},
        "stream": {"segment_batches": 40},
        "evaluation": {"at": [2, num_tasks]},
        "inference": {"strict_images": 0},
        "imports": ["failpoints.py"],
        "commit_every": 1,
        **changes,
    }


class Chaos:
    """Runs one sweep with kills, and resumes it whenever its driver has died."""

    def __init__(self, call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._call = call
        self._folder = folder / "failpoints"
        self._folder.mkdir()
        self._monkeypatch = monkeypatch
        self.resumes = 0

    def plan(self, kills: list[Kill]) -> None:
        """Sets the kills for all later calls of `run`."""
        (self._folder / "plan.json").write_text(json.dumps(kills))
        self._monkeypatch.setenv("SUPSUP_TEST_FAILPOINTS", str(self._folder))

    def run(self, file: Path, kills: list[Kill], *arguments: str) -> str:
        """Runs the sweep with these kills, and resumes it until it completes. Returns the last standard output."""
        self.plan(kills)
        while True:
            code, out, err = self._call("sweep", file, *arguments)
            if code == 0:
                return out
            assert code in (-9, 137), f"{code}: {err}"
            assert self.resumes < len(kills), "the driver has died more often than it was killed"
            self.resumes += 1
            time.sleep(0.5)

    def fired(self) -> int:
        return len(list(self._folder.glob("fired-*")))


@pytest.fixture
def chaos(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chaos:
    shutil.copy(Path(__file__).with_name("failpoints.py"), tmp_path / "failpoints.py")
    return Chaos(call, tmp_path, monkeypatch)


def assert_same(ours: Path, wanted: Path) -> None:
    found, expected = nns_science(the_ledger(ours)), nns_science(the_ledger(wanted))
    for part in expected:
        assert found[part] == expected[part], part
    points = scientific_points(ours, "small")
    assert points == scientific_points(wanted, "small")
    for run in points.values():
        steps = [(name, step) for name, step, _ in run]
        assert len(steps) == len(set(steps))
    assert run_statuses(ours, "small") == {"FINISHED"}


KILLS: list[Kill] = [
    {"target": "worker", "point": "training", "round": 3},
    {"target": "coordinator", "point": "decided", "round": 6},
    {"target": "all", "point": "in_commit", "round": 10},
    {"target": "worker", "point": "evaluating", "round": 10},
    {"target": "driver", "point": "deciding", "round": 17},
    {"target": "worker", "point": "saved", "round": 30},
    {"target": "coordinator", "point": "committing", "round": 30},
]
"""Kills of a worker (in training, in evaluation, after saving), of the coordinator, of the driver, and of all
processes."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("num_tasks", "kills", "resumes"), [(3, KILLS[:3], 1), pytest.param(6, KILLS, 2, marks=pytest.mark.long)]
)
def test_killing_each_kind_of_process_changes_no_result(
    chaos: Chaos,
    call: Call,
    sweep_file: Callable[..., Path],
    tmp_path: Path,
    num_tasks: int,
    kills: list[Kill],
    resumes: int,
) -> None:
    file = sweep_file(**sweep(num_tasks, commit_every=0.2))
    assert call("sweep", file, "output=wanted", "--local")[0] == 0
    chaos.run(file, kills)
    assert chaos.fired() == len(kills)
    assert chaos.resumes == resumes
    assert_same(tmp_path / "runs", tmp_path / "wanted")


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_fifty_kills_change_no_result(
    chaos: Chaos, call: Call, sweep_file: Callable[..., Path], tmp_path: Path, data_root: Path
) -> None:
    """The long version, on MNIST: 30 tasks, 300 rounds, and fifty kills at random rounds and points."""
    changes = {
        "benchmark": {"name": "permuted", "base": "mnist", "num_tasks": 30},
        "net": {"name": "lenet_300_100", "num_outputs": 500},
        "training": {"num_batches": 1000},
        "stream": {"segment_batches": 100},
        "evaluation": {"at": [10, 30]},
        "data": str(data_root),
    }
    file = sweep_file(**sweep(30, **changes))
    assert call("sweep", file, "output=wanted")[0] == 0
    drawn = random.Random(0)
    rounds = sorted(drawn.sample(range(3, 300), 50))
    kills: list[Kill] = []
    for number, when in enumerate(rounds):
        target = ("worker", "coordinator", "worker", "all", "coordinator", "driver")[number % 6]
        points = [point for point in POINTS[target] if point in ("deciding", "decided", "training")]
        kills.append({"target": target, "point": drawn.choice(points), "round": when})
    for target, point, when in (
        ("worker", "saving", 100), ("worker", "saved", 300), ("coordinator", "committing", 100),
        ("coordinator", "in_commit", 300), ("all", "in_commit", 100), ("all", "committed", 300),
        ("driver", "committing", 300), ("worker", "evaluating", 100),
    ):  # fmt: skip
        place = next(i for i, kill in enumerate(kills) if kill["target"] == target and kill["round"] not in (100, 300))
        kills[place] = {"target": target, "point": point, "round": when}
    chaos.run(file, kills)
    print(f"{chaos.fired()} kills fired, {chaos.resumes} resumes")
    assert chaos.fired() == 50
    assert_same(tmp_path / "runs", tmp_path / "wanted")


@pytest.mark.long
def test_a_full_disk_ends_the_run_with_a_message_and_a_resume_completes_it(
    chaos: Chaos, call: Call, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    """The disk is full when a mask is written, full when the ledger is written, and later read-only when the ledger is
    written. The run is resumed after each fault."""
    file = sweep_file(**sweep(4, commit_every=0.2))
    assert call("sweep", file, "output=wanted", "--local")[0] == 0
    faults = [
        ({"target": "worker", "point": "writing", "round": 5, "fault": "disk_full"}, "No space left on device"),
        ({"target": "coordinator", "point": "in_commit", "round": 10, "fault": "disk_full"}, "disk is full"),
        ({"target": "coordinator", "point": "in_commit", "round": 15, "fault": "read_only"}, "readonly database"),
    ]
    chaos.plan([fault for fault, _ in faults])
    for number, (_, words) in enumerate(faults):
        code, out, err = call(*(["resume"] if number else ["sweep", file]), "--local")
        assert code == 1, err
        assert "Traceback" not in out + err
        assert words in out + err
        assert "supsup resume" in out
    code, out, err = call("resume", "--local")
    assert code == 0, err
    assert chaos.fired() == 3
    assert_same(tmp_path / "runs", tmp_path / "wanted")
