"""Sweeps with an object store as storage. Losing the machine, or the store for a minute, changes no result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs

from orchestrator.base.output_folder import OutputFolder
from orchestrator.cli import run_sweep
from orchestrator.execution.launch import prepare_data
from orchestrator.sweeps.sweep import find_sweep
from tests.chaos import test_kill
from tests.chaos.conftest import Nodes
from tests.chaos.test_cluster import NNS as STREAMS
from tests.chaos.test_cluster import SHARDS, committed
from tests.object_store import ObjectStore
from tests.outputs import kill_all, nns_science, run_statuses, scientific_points, tables, the_ledger, trained, wait_for

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
    """The URL of a new folder in the object store. Commands find the store's keys in the environment."""
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://tests/{tmp_path.name}-{time.time_ns()}"


def assert_same(ours: Path, wanted: Path, scenario: str) -> None:
    sweep = find_sweep(OutputFolder(ours), None)
    if scenario != "NNs":
        for key in sweep.store:
            sweep.store.get(key)  # downloads artifacts that no evaluation has read yet
        test_kill.assert_same(ours, wanted)
        return
    versions = sweep.masks(the_ledger(ours).parent.name)
    found, expected = nns_science(the_ledger(ours), versions=versions), nns_science(the_ledger(wanted))
    for part in expected:
        assert found[part] == expected[part], part
    assert scientific_points(ours, "small") == scientific_points(wanted, "small")
    assert run_statuses(ours, "small") == {"FINISHED"}


@pytest.mark.parametrize("scenario", [pytest.param("GNu", marks=pytest.mark.long), "NNs"])
def test_a_machine_that_is_lost_is_replaced_from_the_store(
    supsup: Callable[..., Any],
    launch: Callable[..., Any],
    sweep_file: Callable[..., Path],
    tmp_path: Path,
    url: str,
    scenario: str,
) -> None:
    """The sweep is killed and its output deleted. A resume in a fresh output uses only the store, and trains no task
    twice."""
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
    """An object store of this test only, so that the test can stop it."""
    server = ObjectStore(tmp_path / "weed")
    server.start()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # this process may have cached connections to another server
    yield server
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.long  # five minutes each
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("node", "total"), [(SHARDS, 60), (STREAMS, 120)], ids=["60 shards", "NNs"])
def test_losing_the_drivers_output_and_the_store_for_a_minute_changes_no_result(
    call: Call,
    launch: Callable[..., Any],
    sweep_file: Callable[..., Path],
    tmp_path: Path,
    own_store: ObjectStore,
    cluster_of: Callable[..., Nodes],
    node: dict[str, Any],
    total: int,
) -> None:
    """The cluster has three nodes. Workers wait until the store answers again. Run with -s to print the times."""
    scenario = node.get("scenario", "GNu")
    file = sweep_file(**node, snapshot_every=2)
    assert call("sweep", file, "output=wanted", "--local")[0] == 0
    cluster = cluster_of(3)
    process = launch("sweep", file, "storage=s3://tests/kept", "--address", cluster.address)
    wait_for(lambda: committed(tmp_path / "runs") >= 0.3 * total)
    kill_all(process.pid)
    process.communicate()
    had, lost = committed(tmp_path / "runs"), time.monotonic()
    shutil.rmtree(tmp_path / "runs")
    fresh = tmp_path / "fresh"
    process = launch("resume", "storage=s3://tests/kept", "output=fresh", "--address", cluster.address)
    wait_for(lambda: committed(fresh) > 0)
    found = committed(fresh)
    wait_for(lambda: committed(fresh) > max(had, found))
    print(f"killed with {had} committed; restored {found}; new work after {time.monotonic() - lost:.1f} s")
    wait_for(lambda: committed(fresh) >= 0.6 * total)
    own_store.stop()
    time.sleep(60)
    assert process.poll() is None
    before, back = committed(fresh), time.monotonic()
    own_store.start()
    wait_for(lambda: committed(fresh) > before)
    print(f"store stopped for 60 s at {before}; next commit {time.monotonic() - back:.1f} s after the store's restart")
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "storage: s3://tests/kept" in out
    assert_same(fresh, tmp_path / "wanted", scenario)


def test_a_command_stops_when_another_machine_has_taken_over(
    supsup: Callable[..., Any],
    launch: Callable[..., Any],
    sweep_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two machines resume the same sweep. The second one completes it. The first one reports that it was replaced, and
    stops. The second one also fetches what the first one stores while the second one starts."""
    url = f"file://{tmp_path}/stored"
    overtaken: list[bool] = []

    def snapshots() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.glob("stored/sweeps/*/groups/*/ledger-*")}

    def dawdle(*arguments: Any) -> None:
        prepare_data(*arguments)
        if not overtaken:
            before = snapshots()
            begun = time.monotonic()  # on a slow disk the next snapshot may be taken only after the last task
            wait_for(lambda: snapshots() != before or time.monotonic() - begun > 5)
            overtaken.append(True)

    monkeypatch.setattr(run_sweep, "prepare_data", dawdle)
    file = sweep_file(**test_kill.sweep(40), snapshot_every=0.2)
    process = launch("sweep", file, f"storage={url}", "--local")
    wait_for(lambda: trained(tmp_path / "runs"))
    found = supsup("resume", f"storage={url}", "output=other", "--local")
    assert found.code == 0, found.err
    assert "40/40 shards" in found.out
    out, err = process.communicate(timeout=60)
    assert process.returncode in (1, 130)
    assert overtaken
    assert "another process has taken over this ledger" in out + err
    assert len(trained(tmp_path / "runs")) < 40
    assert "40/40" in supsup("status", f"storage={url}").out


@pytest.mark.long
def test_a_copy_that_was_fetched_early_is_brought_up_to_date(
    supsup: Callable[..., Any], launch: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    """The sweep is fetched early, and its machine is lost later. A second fetch gets the last snapshot."""
    url = f"file://{tmp_path}/stored"
    longer = {**NNS, "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 60}}
    file = sweep_file(**longer, snapshot_every=0.2)
    process = launch("sweep", file, f"storage={url}", "--local")
    wait_for(lambda: committed(tmp_path / "runs") > 5)
    time.sleep(1)
    assert supsup("fetch", f"storage={url}", "output=looked").code == 0
    early = committed(tmp_path / "looked")

    def stored() -> int:
        assert supsup("fetch", f"storage={url}", "output=probe").code == 0
        return committed(tmp_path / "probe")

    wait_for(lambda: stored() > early + 20)
    kill_all(process.pid)
    process.communicate()
    assert supsup("fetch", f"storage={url}", "output=looked").code == 0
    assert committed(tmp_path / "looked") > early + 20
    assert not list(tmp_path.glob("looked/sweeps/*/groups/*/*corrupt*"))
    found = supsup("cancel", "NNs", "output=runs")
    assert found.code == 0, found.err
    assert "stopped" in supsup("status", f"storage={url}", "--json").out
