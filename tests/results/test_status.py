"""What a status says from ledgers alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.base.folder_lock import owned
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import Row
from orchestrator.results.status import sweep_status
from orchestrator.spec.sweep_config import read_sweep
from orchestrator.sweeps.sweep import Sweep

QUICK = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


def group(num_workers: int, seconds: float | None) -> GroupState:
    """A group of ten shards with one trained in so many seconds; None: only found in the store, and not begun."""
    shards = [{"key": str(number)} for number in range(10)]
    plan = {
        "group": {
            "seed": 0, "runs": [], "size": [10, 0], "shards": shards, "evaluations": [],
            "num_streams": 0, "segments_per_task": 0,
        },
        "environment": {"num_workers": num_workers},
    }  # fmt: skip
    rows = [Row(1, 0, "plan", plan)]
    rows.append(Row(2, 0, "trained", {"key": "0", "seconds": seconds, "facts": {"accuracy": 0.9}}))
    return GroupState().apply(rows)


@pytest.mark.parametrize(
    ("num_workers", "begun", "rate"),
    [(1, 1, 0.5), (1, 2, 1.0), (3, 2, 3.0)],
)
def test_the_time_that_is_left_counts_all_that_works_at_once(
    num_workers: int, begun: int, rate: float, tmp_path: Path
) -> None:
    sweep = Sweep(read_sweep(QUICK, [f"output={tmp_path}"]), QUICK)
    states = {str(number): group(num_workers, 2.0 if number < begun else None) for number in range(4)}
    with owned(sweep.path):
        status = sweep_status(sweep, states, dict.fromkeys(states, (10, 0)))
    assert status.tasks_per_second == pytest.approx(rate)
    assert status.eta == pytest.approx(36 / rate)


def test_the_pace_of_nns_is_that_of_its_commits_since_the_launch(tmp_path: Path) -> None:
    """Two streams of ten segments a task: 30 rounds in 12 s are 6 tasks, however many workers trained, or ahead."""
    sweep = Sweep(read_sweep(QUICK, [f"output={tmp_path}"]), QUICK)
    plan = {
        "group": {
            "seed": 0, "runs": [], "size": [100, 0], "shards": [], "evaluations": [],
            "num_streams": 2, "segments_per_task": 10,
        },
        "environment": {"num_workers": 3},
    }  # fmt: skip
    decision = {"mask": 0, "freed": None, "outcome": "train", "seconds": 7.0, "latency": 0.1}
    rows = [Row(1, 0, "plan", plan), *(Row(2 + number, 0, "decision", decision) for number in range(100))]
    rows += [Row(200, 1_000, "committed", {"round": 50}), Row(201, 9_000_000, "plan", plan)]
    states = {"group": GroupState().apply(rows)}
    with owned(sweep.path):
        before = sweep_status(sweep, states, {"group": (100, 0)})
        rows = [Row(202, 9_010_000, "committed", {"round": 60}), Row(203, 9_022_000, "committed", {"round": 90})]
        states["group"].apply(rows)
        status = sweep_status(sweep, states, {"group": (100, 0)})
    assert before.tasks_per_second == pytest.approx(3 / 71)  # as long as its segments took, by three workers
    assert status.tasks_per_second == pytest.approx(6 / 12)
    assert status.eta == pytest.approx(90 / (6 / 12))
