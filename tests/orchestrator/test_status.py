"""What a status says from ledgers alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config import read_sweep
from orchestrator.files import owned
from orchestrator.ledger import Row
from orchestrator.state import GroupState
from orchestrator.status import sweep_status
from orchestrator.sweep import Sweep

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
