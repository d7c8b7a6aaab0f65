"""Everything in an object store: the machine is lost, or the store is for a minute; the same end."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs

from orchestrator.sweep import all_sweeps
from tests.chaos import test_kill
from tests.chaos.test_cluster import committed
from tests.object_store import ObjectStore
from tests.outputs import (
    kill_all,
    nns_science,
    run_statuses,
    scientific_points,
    tables,
    the_ledger,
    trained,
    wait_for,
)

Call = Callable[..., tuple[int, str, str]]

NNS: dict[str, Any] = {
    "scenario": "NNs",
    "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 8},
    "training": {"num_batches": 200, "learning_rate": 1e-3},
    "stream": {"segment_batches": 40},
    "evaluation": {"at": [2, 8]},
    "inference": {"strict_images": 0},
    "commit_every": 0.5,
}


@pytest.fixture
def url(object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of the store, which commands started from here can reach."""
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://tests/{tmp_path.name}-{time.time_ns()}"


def assert_same(ours: Path, wanted: Path, scenario: str) -> None:
    (sweep,) = all_sweeps(ours)
    if scenario != "NNs":
        for key in sweep.store:
            sweep.store.get(key)  # what nobody asked for is in the storage alone
        test_kill.assert_same(ours, wanted)
        return
    versions = sweep.masks(the_ledger(ours).parent.name)
    found, expected = nns_science(the_ledger(ours), versions=versions), nns_science(the_ledger(wanted))
    for part in expected:
        assert found[part] == expected[part], part
    assert scientific_points(ours, "small") == scientific_points(wanted, "small")
    assert run_statuses(ours, "small") == {"FINISHED"}


@pytest.mark.parametrize("scenario", [pytest.param("GNu", marks=pytest.mark.long), "NNs"])
def test_a_machine_that_is_lost(
    supsup: Callable[..., Any],
    launch: Callable[..., Any],
    sweep_file: Callable[..., Path],
    tmp_path: Path,
    url: str,
    scenario: str,
) -> None:
    """Killed, and its output deleted: another machine goes on from the store alone, and trains nothing twice."""
    file = sweep_file(**(NNS if scenario == "NNs" else test_kill.sweep(10)), snapshot_every=0.5)
    assert supsup("sweep", file, "output=wanted", "--local").code == 0
    process = launch("sweep", file, f"storage={url}", "--local")
    runs = tmp_path / "runs"
    wait_for(lambda: committed(runs) > (20 if scenario == "NNs" else 3))
    kill_all(process.pid)
    process.communicate()
    before = {row["key"] for row in trained(runs)}
    shutil.rmtree(runs)
    found = supsup("status", f"storage={url}")
    assert found.code == 0, found.err
    assert "interrupted" in found.out
    resumed_ms = time.time() * 1000
    found = supsup("resume", f"storage={url}", "output=fresh", "--local")
    assert found.code == 0, found.err
    assert f"storage: {url}" in found.out
    assert not before & {row["key"] for row in trained(tmp_path / "fresh") if row["started_ms"] > resumed_ms}
    assert_same(tmp_path / "fresh", tmp_path / "wanted", scenario)
    found = supsup("fetch", f"storage={url}", "output=looked")
    assert found.code == 0, found.err
    found = supsup("report", "output=looked")
    assert found.code == 0, found.err
    assert tables(tmp_path / "looked")["points.csv"] == tables(tmp_path / "wanted")["points.csv"]


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A store that no other test needs, so that it can be taken away."""
    server = ObjectStore(tmp_path / "weed")
    server.start()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # in this process: it has known another server
    yield server
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.long  # three minutes each
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", ["GNu", "NNs"])
def test_a_store_that_is_away_for_a_minute(
    call: Call,
    launch: Callable[..., Any],
    sweep_file: Callable[..., Path],
    tmp_path: Path,
    own_store: ObjectStore,
    scenario: str,
) -> None:
    """With real Ray: work waits for the store, and ends as if it had never been away."""
    file = sweep_file(**(NNS if scenario == "NNs" else test_kill.sweep(20)), snapshot_every=2)
    assert call("sweep", file, "output=wanted", "--local")[0] == 0
    process = launch("sweep", file, "storage=s3://tests/outage")
    wait_for(lambda: committed(tmp_path / "runs") > (20 if scenario == "NNs" else 3))
    own_store.stop()
    time.sleep(60)
    assert process.poll() is None
    before = committed(tmp_path / "runs")
    back = time.monotonic()
    own_store.start()
    wait_for(lambda: committed(tmp_path / "runs") > before)
    print(f"{scenario}: {before} committed when it came back, the next {time.monotonic() - back:.1f} s after that")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "storage: s3://tests/outage" in out
    assert_same(tmp_path / "runs", tmp_path / "wanted", scenario)
    shutil.rmtree(tmp_path / "runs")
    code, out, err = call("resume", "storage=s3://tests/outage", "output=fresh", "--local")
    assert code == 0, err
    assert_same(tmp_path / "fresh", tmp_path / "wanted", scenario)
