"""Three Ray nodes on one machine, with a token. Killing and draining nodes and killing the driver changes no result."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.records.ledgers.ledger import LedgerReader
from orchestrator.records.rows import JobRetried
from tests.chaos.conftest import Nodes
from tests.chaos.nodes import free_port
from tests.chaos.test_kill import assert_same
from tests.outputs import kill_all, nns_science, the_ledger, trained, wait_for

Call = Callable[..., tuple[int, str, str]]
Launch = Callable[..., Any]


@pytest.mark.long  # a minute and a half
def test_killing_a_node_changes_no_result(
    call: Call,
    launch: Launch,
    sweep_file: Callable[..., Path],
    tmp_path: Path,
    cluster_of: Callable[..., Nodes],
) -> None:
    file = sweep_file(
        benchmark={"name": "permuted", "base": "digits", "num_tasks": 12},
        training={"num_batches": 400},
        evaluation={"at": [12]},
        grid={"scenario": ["GG", "GNu"]},
    )
    assert call("sweep", file, "output=wanted", "--local")[0] == 0
    cluster = cluster_of(3)
    process = launch("sweep", file, "--address", cluster.address)
    wait_for(lambda: {row["worker"] for row in trained(tmp_path / "runs")} == {0, 1})
    cluster.kill(0)
    cluster.kill(1)  # at least one worker dies; one node remains
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "12/12 shards" in out
    with LedgerReader(the_ledger(tmp_path / "runs")) as reader:
        retried = [row.event for row in reader.rows() if isinstance(row.event, JobRetried)]
    assert retried
    assert all(event.free and "node" in event.reason for event in retried)
    assert_same(tmp_path / "runs", tmp_path / "wanted")


@pytest.mark.long
def test_an_address_with_the_wrong_token_is_reported(
    call: Call,
    sweep_file: Callable[..., Path],
    tmp_path: Path,
    cluster_of: Callable[..., Nodes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = cluster_of(0).address
    (tmp_path / "token").rename(tmp_path / "right")
    (tmp_path / "token").write_text(secrets.token_hex(32))
    code, _, err = call("sweep", sweep_file(), "--address", address)
    assert code == 2
    assert "RAY_AUTH_TOKEN_PATH" in err
    assert "Traceback" not in err


def committed(output: Path) -> int:
    """Returns the number of trained shards, or of committed decisions in NNs."""
    for path in output.glob("sweeps/*/groups/*/ledger.sqlite"):
        with closing(sqlite3.connect(path)) as db, suppress(sqlite3.OperationalError):
            (found,) = db.execute("SELECT count(*) FROM rows WHERE kind IN ('trained', 'decision')").fetchone()
            return int(found)
    return 0


@pytest.mark.long  # a minute and a half; ten minutes on half a CPU
@pytest.mark.timeout(1200)
def test_a_submitted_sweep_is_one_job_and_can_be_continued_after_its_driver_was_killed(
    call: Call, sweep_file: Callable[..., Path], tmp_path: Path, cluster_of: Callable[..., Nodes]
) -> None:
    """The working tree does not contain this project, so the job needs the interpreter in which supsup is installed."""
    file = sweep_file(
        benchmark={"name": "permuted", "base": "digits", "num_tasks": 24},
        training={"num_batches": 400},
        evaluation={"at": [24]},
    )
    output = tmp_path / "kept"
    (tmp_path / ".gitignore").write_text("home/\ntoken\n")
    port = free_port()
    cluster_of(head_cpus=2, port=port)  # each other node on this machine would unpack the job's folder again
    asked = ("submit", file, f"output={output}", "--address", f"http://127.0.0.1:{port}")
    code, out, err = call(*asked, "--detach")
    assert code == 0, err
    name = out.split(":")[0]
    assert "was submitted before" in call(*asked, "--detach")[1]
    wait_for(lambda: trained(output), 400)
    (driver,) = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "orchestrator.cli" in (words := process.info["cmdline"] or []) and f"output={output}" in words
        and "sweep" in words and "-c" not in words
    ]  # fmt: skip
    kill_all(driver)
    assert call("logs", name, *asked[-2:])[0] == 1
    before = len(trained(output))
    code, out, err = call(*asked)
    assert code == 0, out + err
    assert f"{name}-2: was submitted" in out
    assert "24/24 shards" in out
    # Each of the two workers may have stored a shard that has no row. The second job finds it and does not train it.
    after = len(trained(output))
    assert before < after <= 24
    assert after >= 24 - 2
    assert "was submitted before (SUCCEEDED)" in call(*asked)[1]
    file.write_text(file.read_text() + "\n# another tree\n")
    code, out, _ = call(*asked, "training.num_batches=4000", "--detach")
    other = out.split(":")[0]
    wait_for(lambda: len(trained(output)) > after, 400)
    assert call("stop", other, *asked[-2:])[0] == 0
    code, out, _ = call("logs", other, *asked[-2:])
    assert code == 130
    assert "Go on with: supsup resume" in out


NNS: dict[str, Any] = {
    "scenario": "NNs",
    "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 20},
    "training": {"num_batches": 600, "learning_rate": 5e-4},
    "stream": {"segment_batches": 100, "num_streams": 2},
    "evaluation": {"at": [10, 20]},
    "inference": {"strict_images": 0},
    "commit_every": 0.5,
}
SHARDS: dict[str, Any] = {
    "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 60},
    "training": {"num_batches": 600},
    "evaluation": {"at": [60]},
    "grid": {"scenario": ["GG", "GNu"]},
}


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("node", "total"), [(SHARDS, 60), (NNS, 120)], ids=["60 shards", "NNs"])
def test_killing_and_draining_nodes_and_killing_the_driver_changes_no_result(
    call: Call,
    launch: Launch,
    sweep_file: Callable[..., Path],
    tmp_path: Path,
    cluster_of: Callable[..., Nodes],
    node: dict[str, Any],
    total: int,
) -> None:
    """Run with -s to print the seconds from each fault to the next commit."""
    file = sweep_file(**node)
    code, _, err = call("sweep", file, "output=wanted", "--local")
    assert code == 0, err
    output = tmp_path / "runs"
    cluster = cluster_of(3)
    process = launch("sweep", file, "--address", cluster.address)

    def after(share: float, what: str, happens: Callable[[], object]) -> None:
        """Calls `happens` once this share of the work is committed, then waits for the next commit."""
        nonlocal process
        wait_for(lambda: committed(output) >= share * total)
        before, started = committed(output), time.monotonic()
        happens()
        settled = committed(output)
        wait_for(lambda: committed(output) > settled)
        print(f"{what}: at {before} of {total}, {settled} when it had happened; {time.monotonic() - started:.1f} s")

    def restart() -> None:
        nonlocal process
        kill_all(process.pid)
        process.communicate()
        process = launch("resume", "--address", cluster.address)

    after(0.15, "a node killed", lambda: cluster.kill(0))
    cluster.add()
    after(0.4, "a node drained", lambda: cluster.drain(1, 5))
    cluster.add()
    after(0.65, "the driver killed", restart)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    if node is NNS:
        assert nns_science(the_ledger(output)) == nns_science(the_ledger(tmp_path / "wanted"))
    else:
        assert "60/60 shards" in out
        assert_same(output, tmp_path / "wanted")
