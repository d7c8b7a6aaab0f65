"""Ray clusters without room, with an autoscaler, with other versions, or that start late. Run with -s for seconds."""

from __future__ import annotations

import datetime
import json
import os
import platform
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from orchestrator.base.library_internals import ray_upload_limit
from orchestrator.cluster.ray_jobs import EXCLUDES
from orchestrator.cluster.upload import measure
from tests.chaos.conftest import Nodes
from tests.chaos.nodes import free_port
from tests.chaos.test_kill import assert_same
from tests.outputs import below, kill_all, trained, wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

Call = Callable[..., tuple[int, str, str]]
Launch = Callable[..., Any]


def waits(output: Path) -> list[str]:
    """Returns the texts of an output's waiting files."""
    return [path.read_text() for path in output.glob("sweeps/*/**/waiting")]


def seconds_until_told(output: Path) -> list[float]:
    """Returns the seconds from the start of each wait to its first line in the log."""
    found: dict[str, float] = {}
    (log,) = output.glob("sweeps/*/supsup.log")
    for line in map(json.loads, log.read_text().splitlines()):
        if " waited for room in the cluster since " in line["message"]:
            began = line["message"].partition(" since ")[2][:8]
            told = datetime.datetime.fromisoformat(line["time"]).astimezone()
            began_at = told.replace(**dict(zip(("hour", "minute", "second"), map(int, began.split(":")), strict=True)))
            found.setdefault(began, (told - began_at).total_seconds())
    return list(found.values())


def test_a_sweep_without_room_says_so_and_goes_on_when_there_is_room(
    call: Call, launch: Launch, sweep_file: Callable[..., Path], tmp_path: Path, cluster_of: Callable[..., Nodes]
) -> None:
    """First before the sweep begins, and then after all its nodes were lost."""
    file = sweep_file(
        benchmark={"name": "permuted", "base": "digits", "num_tasks": 12},
        training={"num_batches": 400},
        evaluation={"at": [12]},
    )
    assert call("sweep", file, "output=wanted", "--local")[0] == 0
    cluster, output = cluster_of(1), tmp_path / "runs"
    process = launch("sweep", file, "--address", cluster.address)
    (text,) = wait_for(lambda: waits(output))
    assert text.startswith("1 training group has waited for room in the cluster since ")
    assert "2 workers with 1 CPU each; the cluster has 2 nodes with 1 CPU (free: 1 CPU); add nodes, or" in text
    assert "--workers 1" in text
    assert f"WAITING {text}" in call("status")[1]
    assert json.loads(call("status", "--json")[1])[0]["waiting"] == [text]
    cluster.add()
    wait_for(lambda: trained(output))
    assert not waits(output)
    assert "WAITING" not in call("status")[1]
    cluster.kill(0)
    cluster.kill(1)
    (text,) = wait_for(lambda: waits(output))
    assert text.startswith("training group ")
    assert "the cluster has 1 node with 0 CPUs" in text
    assert "WAITING training group" in call("status")[1]
    cluster.add()
    cluster.add()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "12/12 shards" in out
    assert err.count("has waited for room in the cluster") >= 2
    assert err.count("no training group waits for room in the cluster any more") == 2
    assert not waits(output)
    assert_same(output, tmp_path / "wanted")
    seconds = seconds_until_told(output)
    print(f"too little room: told after {seconds} s")
    assert max(seconds) <= 15


SMALL = {"resources": {"CPU": 1}, "min_workers": 0, "max_workers": 2}


@pytest.mark.parametrize(
    ("node_type", "words"),
    [
        ({**SMALL, "node_config": {"seconds": 20}}, "the autoscaler is starting nodes (2 of type small)"),
        (
            {**SMALL, "node_config": {"error": "no such machine is free"}},
            "the autoscaler could not start a node of type small (",
        ),
        (
            {**SMALL, "node_config": {}, "max_workers": 1},
            "the autoscaler cannot start enough nodes for the workers, so raise max_workers of the cluster",
        ),
    ],
    ids=["late", "failing", "too few"],
)
def test_a_message_says_what_the_autoscaler_does(
    launch: Launch,
    call: Call,
    sweep_file: Callable[..., Path],
    tmp_path: Path,
    cluster_of: Callable[..., Nodes],
    node_type: dict[str, Any],
    words: str,
) -> None:
    cluster = cluster_of(node_types={"small": node_type})
    process = launch("sweep", sweep_file(), "--address", cluster.address)
    output = tmp_path / "runs"
    try:
        (text,) = wait_for(lambda: [text for text in waits(output) if words in text], 60)
        assert f"WAITING {text[:40]}" in call("status")[1]
        if "could not" in words:
            process.send_signal(signal.SIGTERM)
        elif "cannot start" in words:
            assert call("drain")[0] == 0
        _, err = process.communicate(timeout=200)
    finally:
        kill_all(process.pid)
    assert process.returncode == (0 if "is starting" in words else 130), err
    assert words in err
    print(f"autoscaler: {words[:40]}…: told after {seconds_until_told(output)} s")
    assert max(seconds_until_told(output)) <= 15


def test_a_cluster_of_another_version_is_refused(
    call: Call, sweep_file: Callable[..., Path], cluster_of: Callable[..., Nodes]
) -> None:
    cluster = cluster_of(version="2.1.0")
    code, _, err = call("sweep", sweep_file(), "--address", cluster.address)
    assert code == 2
    assert "Traceback" not in err
    python = platform.python_version()
    own = f"Ray {ray.__version__} and Python {python}; "
    assert f"runs Ray 2.1.0 and Python {python}, but this command runs {own}" in err


def test_the_largest_upload_that_is_not_refused_is_accepted(
    call: Call, sweep_file: Callable[..., Path], tmp_path: Path, cluster_of: Callable[..., Nodes]
) -> None:
    (tmp_path / ".gitignore").write_text("home/\ntoken\nkept\n")
    file, port = sweep_file(), free_port()
    cluster_of(head_cpus=2, port=port)
    asked = ("submit", file, f"output={tmp_path / 'kept'}", "--address", f"http://127.0.0.1:{port}")
    large = tmp_path / "data" / "large.bin"
    large.parent.mkdir()
    large.touch()
    rest = ray_upload_limit() - measure(tmp_path, EXCLUDES).whole.num_bytes
    os.truncate(large, rest)
    began = time.monotonic()
    code, _, err = call(*asked)
    assert code == 2
    assert (
        "would have 104.9 MB, but Ray accepts less than 104.9 MB; its largest parts are data/large.bin (104.9 MB)"
        in err
    )
    print(f"an upload that is too large: refused after {time.monotonic() - began:.1f} s")
    os.truncate(large, rest - 1)
    code, out, err = call(*asked)
    assert code == 0, err
    assert "3/3 shards" in out
    assert "the job uploads 104.9 MB, mostly data/large.bin (104.9 MB)" in err
    code, out, err = call("status", "small", *asked[-2:])
    assert code == 0, err
    assert "SUCCEEDED" in out
    assert "shards 3/3" in out


@pytest.mark.parametrize("stopped", [1, 3])
def test_ray_that_does_not_start_in_time_is_started_again(
    launch: Launch, sweep_file: Callable[..., Path], stopped: int
) -> None:
    """The raylet of the first start, or of all starts, does not run, as on a machine that is far too busy."""
    process = launch("sweep", sweep_file())
    found: set[int] = set()
    while len(found) < stopped:
        (new,) = wait_for(lambda: set(raylets(process.pid)) - found, 200)
        os.kill(new, signal.SIGSTOP)
        found.add(new)
    out, err = process.communicate(timeout=250)
    assert "Traceback" not in out + err
    assert "Ray has not started yet, after 15 s; waiting longer" in err
    assert "trying again, attempt 2 of 3" in err
    assert not [pid for pid in found if psutil.pid_exists(pid)]
    if stopped == 1:
        assert process.returncode == 0, err
        assert "3/3 shards" in out
    else:
        assert process.returncode == 1, err
        assert err.count("Ray did not start on this machine in 3 attempts") == 1
        assert "an error stopped the sweep" in out


def raylets(pid: int) -> list[int]:
    """Returns the ids of the raylets below a process, of which each is its own program."""
    return [one for one in below(pid, "raylet/raylet") if psutil.Process(one).name() == "raylet"]
