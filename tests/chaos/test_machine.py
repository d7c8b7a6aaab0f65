"""Clocks that jump, and limits of file descriptors and memory: the command says so, and a resume ends the same."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import psutil
import pytest
import yaml

from orchestrator.records.ledgers.ledger import LedgerReader
from tests.chaos.processes import Command, Ended, Processes
from tests.chaos.results import Results, assert_same
from tests.chaos.test_faults import assert_told
from tests.chaos.twin import COMMON
from tests.outputs import kill_all, the_ledger, trained, wait_for
from tests.requirements import missing

LONGER = {
    **COMMON, "name": "longer", "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 20},
    "training": {"num_batches": 500}, "evaluation": {"at": [5, 20]}, "inference": {"strict_images": 20},
    "grid": {"scenario": ["GG", "GNu"]}, "resources": {"num_workers": 1},
}  # fmt: skip
"""A sweep of some seconds, so that a test can change the machine while it runs."""


@pytest.fixture
def processes(fork_context: ForkServerContext, tmp_path: Path) -> Processes:
    (tmp_path / "longer.yaml").write_text(yaml.safe_dump(LONGER))
    return Processes(fork_context, tmp_path, {"HOME": str(tmp_path / "home")})


@pytest.fixture(scope="module")
def wanted(fork_context: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The results of the undisturbed sweep."""
    folder = tmp_path_factory.mktemp("longer")
    (folder / "longer.yaml").write_text(yaml.safe_dump(LONGER))
    ended = Processes(fork_context, folder, {"HOME": str(folder)}).run("sweep", "longer.yaml", "--local")
    assert ended.code == 0, ended.err
    return Results.of(folder / "runs")


def assert_resumes(processes: Processes, wanted: Results) -> None:
    """Resumes the sweep, and asserts that its end is that of the undisturbed sweep."""
    ended = processes.run("sweep", "longer.yaml", "--local")
    assert ended.code == 0, ended.out + ended.err
    output = processes.folder / "runs"
    assert_same(Results.of(output), wanted)
    times = Counter(row["key"] for row in trained(output))
    assert max(times.values()) == 1


@pytest.fixture
def running(processes: Processes) -> Iterator[Command]:
    """The sweep, when it has trained some tasks."""
    command = processes.start("sweep", "longer.yaml", "--local")
    wait_for(lambda: len(trained(processes.folder / "runs")) >= 3)
    yield command
    command.signal(signal.SIGKILL)


@pytest.mark.long
@pytest.mark.parametrize("left", [0, 1, 2, 3, 5, 8, 20])
def test_a_running_sweep_gets_no_more_file_descriptors(
    processes: Processes, running: Command, wanted: Results, left: int
) -> None:
    """left: how many more descriptors the process may open."""
    most = max(map(int, os.listdir(f"/proc/{running.pid}/fd"))) + 1 + left
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (most, most))
    assert_told(running.wait(), {0, 1})
    assert_resumes(processes, wanted)


@pytest.mark.long
@pytest.mark.parametrize("megabytes", [0, 1, 4, 16, 50, 120, 200, 400])
def test_a_running_sweep_gets_no_more_memory(
    processes: Processes, running: Command, wanted: Results, megabytes: int
) -> None:
    """megabytes: how much more the process may allocate. Native libraries crash or hang if they get next to none."""
    most = psutil.Process(running.pid).memory_info().vms + megabytes * 1_000_000
    resource.prlimit(running.pid, resource.RLIMIT_AS, (most, most))
    try:
        ended = running.wait(60)
        print(megabytes, ended.code, ended.err[-500:])
        if megabytes >= 120:
            assert_told(ended, {0, 1, 2})
    except TimeoutError:
        assert megabytes < 50
    assert_resumes(processes, wanted)


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "limit"),
    [*((resource.RLIMIT_NOFILE, most) for most in (8, 16, 24, 32, 48, 64)),
     *((resource.RLIMIT_AS, most * 1_000_000) for most in (300, 600, 1000, 1500, 2000, 3000)),
     *((resource.RLIMIT_FSIZE, most) for most in (0, 10_000, 100_000, 1_000_000))],
)  # fmt: skip
def test_a_sweep_starts_under_a_limit(processes: Processes, wanted: Results, kind: int, limit: int) -> None:
    """A real process: the limits also hold while Python imports."""
    process = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "sweep", "longer.yaml", "--local"],
        cwd=processes.folder, env={**os.environ, **processes.environment}, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(kind, (limit, limit)), timeout=200,
    )  # fmt: skip
    print(process.returncode, process.stderr[-1500:])
    assert_told(Ended(process.returncode, process.stdout, process.stderr, None), {0, 1, 2})
    assert_resumes(processes, wanted)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Returns a function that sets the clock of all processes that are started after it: `-1d`, `+365d`, `+0`."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        missing("no libfaketime (Debian's package faketime)")
    file = tmp_path / "clock"

    def move(offset: str) -> None:
        file.with_suffix(".new").write_text(f"{offset}\n")
        file.with_suffix(".new").rename(file)

    move("+0")
    monkeypatch.setenv("LD_PRELOAD", str(found[0]))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(file))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    return move


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", [["--local"], []], ids=["local", "Ray"])
def test_the_clock_jumps_back_by_a_day_and_ahead_by_a_year(
    processes: Processes, wanted: Results, clock: Callable[[str], None], how: list[str]
) -> None:
    output = processes.folder / "runs"

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", *words, *how],
            cwd=processes.folder, env={**os.environ, **processes.environment}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def jump_after(count: int, offset: str) -> None:
        before = len(trained(output))
        wait_for(lambda: len(trained(output)) >= before + count)
        clock(offset)

    process = start("sweep", "longer.yaml")
    jump_after(2, "-1d")
    jump_after(2, "-1d")
    kill_all(process.pid)
    process.communicate()
    clock("-2d")
    process = start("resume")
    jump_after(2, "+365d")
    jump_after(2, "+365d")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 130, out
    clock("+0")
    began = time.time()
    process = start("resume")
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, out
    assert "stalled" not in out
    assert_same(Results.of(output), wanted)
    with LedgerReader(the_ledger(output)) as reader:
        times = [row.time_ms for row in reader.rows()]
    assert times == sorted(times)
    assert times[-1] > (began + 300 * 86400) * 1000
    (log,) = output.glob("sweeps/*/supsup.log")
    told = Counter(node["key"] for line in log.read_text().splitlines() if (node := json.loads(line)).get("event") ==
                   "trained")  # fmt: skip
    assert set(told.values()) == {1}
    for words in (["fsck"], ["gc", "--delete"], ["report"]):
        ended = processes.run(*words)
        assert ended.code == 0, ended.out + ended.err
    assert_same(Results.of(output), wanted)
