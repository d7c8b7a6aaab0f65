"""All processes are killed at a random moment. `supsup resume` gives the same results and trains no task twice."""

from __future__ import annotations

import os
import random
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.outputs import artifacts, kill_all, run_statuses, scientific_points, tables, trained, wait_for

Call = Callable[..., tuple[int, str, str]]


def sweep(num_tasks: int) -> dict[str, Any]:
    return {
        "benchmark": {"name": "permuted", "base": "digits", "num_tasks": num_tasks},
        "training": {"num_batches": 300},
        "evaluation": {"at": [2, num_tasks]},
        "grid": {"scenario": ["GG", "GNu"]},
    }


def assert_same(ours: Path, wanted: Path) -> None:
    """Asserts that both outputs have equal accuracies, equal artifacts (bit for bit) and equal MLflow points."""
    assert artifacts(ours) == artifacts(wanted)
    assert tables(ours) == tables(wanted)
    points = scientific_points(ours, "small")
    assert points == scientific_points(wanted, "small")
    for found in points.values():
        steps = [(name, step) for name, step, _ in found]
        assert len(steps) == len(set(steps))
    assert run_statuses(ours, "small") == {"FINISHED"}


LAUNCH = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(time.time())
"""A string that differs between test runs. All pytest-xdist processes of one run share it, because they must collect
the same tests."""


@pytest.mark.parametrize("seed", [zlib.crc32(LAUNCH.encode())])
def test_one_kill_changes_no_result(
    call: Call, launch: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path, seed: int
) -> None:
    """The short version: one kill soon after the first shard is trained, on real Ray."""
    file = sweep_file(**sweep(6))
    assert call("sweep", file, "output=wanted", "--local")[0] == 0
    process = launch("sweep", file)
    wait_for(lambda: trained(tmp_path / "runs"))
    time.sleep(random.Random(seed).uniform(0, 2.5))
    kill_all(process.pid)
    process.communicate()
    before = [row["key"] for row in trained(tmp_path / "runs")]
    code, out, err = call("resume")
    assert code == 0, err
    assert "6/6 shards" in out
    after = [row["key"] for row in trained(tmp_path / "runs")]
    assert after[: len(before)] == before
    assert len(after) == len(set(after))
    assert_same(tmp_path / "runs", tmp_path / "wanted")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_five_kills_at_random_moments_change_no_result(
    call: Call, launch: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path, seed: int
) -> None:
    """The long version: each kill comes after a quarter to seven tenths of the time that the whole sweep takes."""
    file = sweep_file(**sweep(40), seeds=[0, 1])
    started = time.monotonic()
    assert call("sweep", file, "output=wanted")[0] == 0
    whole = time.monotonic() - started
    drawn = random.Random(seed)
    output = tmp_path / "runs"
    done: list[str] = []
    for _ in range(5):
        begun = any(output.glob("sweeps/*/sweep.json"))
        process = launch(*(["resume"] if begun else ["sweep", file]))
        time.sleep(drawn.uniform(whole / 4, whole * 0.7))
        kill_all(process.pid)
        process.communicate()
        keys = [row["key"] for row in trained(output)]
        assert set(done) <= set(keys)
        assert len(keys) == len(set(keys))
        print(f"killed with {len(keys)} of 80 shards trained")
        done = keys
    begun = any(output.glob("sweeps/*/sweep.json"))
    code, out, err = call(*(["resume"] if begun else ["sweep", file]))
    assert code == 0, err
    assert "80/80 shards" in out
    keys = [row["key"] for row in trained(output)]
    assert len(keys) == len(set(keys))
    assert_same(output, tmp_path / "wanted")
