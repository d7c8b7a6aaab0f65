"""Hostile input of any kind, to any verb: one line, a known exit code, little time and memory, no file elsewhere.

The long tests print how many invocations they made: `pytest -m long -s tests/cli/test_fuzz_input.py`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given

from tests.cli.fuzzing import CODES, MOST_BYTES, MOST_SECONDS, changed_outside, complaint, files_of, prepare
from tests.cli.input_grammar import EVERY_VALUE, KEYS, SHARED, Invocation, invocations, only_key
from tests.conftest import PROGRAM

Command = Callable[..., Any]

LONG = [pytest.mark.long, pytest.mark.timeout(0)]


@pytest.fixture
def output(supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path) -> Path:
    """An output with a finished sweep of two runs."""
    file = sweep_file(training={"num_batches": 4}, grid={"scenario": ["GG", "GNu"]})
    assert supsup("sweep", file, "--local", "output=made").code == 0
    return tmp_path / "made"


@pytest.fixture
def without_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """No training, no server and no Ray: all parts of a command but these are done."""
    monkeypatch.setattr("orchestrator.cli.run_sweep.launch", lambda *arguments: None)
    monkeypatch.setattr("orchestrator.tracking.ui_server.until_stopped", lambda *arguments: None)
    monkeypatch.setattr("orchestrator.tracking.team_server._serve_mlflow", lambda *arguments: 0)
    monkeypatch.setattr("orchestrator.tracking.team_server.running_database", _no_postgres)


@contextlib.contextmanager
def _no_postgres(*arguments: object) -> Iterator[Path]:
    yield Path("/socket")


@pytest.fixture
def little_memory() -> Iterator[None]:
    """At most one more gigabyte of memory for this process."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + MOST_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Fails if the `with` block needs too much time of the processor, or waits for very long."""

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"still busy after {3 * MOST_SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(int(3 * MOST_SECONDS))
    began = time.process_time()
    try:
        yield
    finally:
        signal.alarm(0)
    assert time.process_time() - began < MOST_SECONDS


def fuzz(check: Callable[[Invocation], None], num_examples: int, derandomize: bool) -> None:
    """Calls `check` with many invocations, and reports the shortest that fails."""
    settings = hypothesis.settings(
        max_examples=num_examples, derandomize=derandomize, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink], report_multiple_bugs=False,
    )  # fmt: skip
    settings(given(invocations())(check))()


@pytest.mark.parametrize("num_examples", [100, pytest.param(5000, marks=LONG)])
def test_any_input_is_answered_in_process(
    supsup: Command, output: Path, without_long_work: None, little_memory: None, monkeypatch: pytest.MonkeyPatch,
    num_examples: int,
) -> None:  # fmt: skip
    numbers = itertools.count()
    codes: Counter[int] = Counter()

    def check(invocation: Invocation) -> None:
        root = output.parent / f"at{next(numbers)}"
        place = prepare(root, invocation, output)
        before = files_of(root)
        monkeypatch.chdir(place.work)
        monkeypatch.setenv("HOME", str(place.home))
        try:
            with time_limit():
                found = supsup(*invocation.words)
        finally:
            monkeypatch.chdir(output.parent)
        assert complaint(invocation, found.code, found.out, found.err) is None, found
        assert changed_outside(invocation, place, before, files_of(root)) == []
        shutil.rmtree(root)
        codes[found.code] += 1

    fuzz(check, num_examples, derandomize=num_examples == 100)
    print(f"{sum(codes.values())} invocations in process; exit codes: {dict(codes)}")


@pytest.mark.parametrize("is_long", [False, pytest.param(True, marks=LONG)])
def test_every_value_of_every_key_is_accepted_or_refused(
    supsup: Command, tmp_path: Path, little_memory: None, is_long: bool
) -> None:
    (tmp_path / "s.yaml").write_text("".join(f"{key}: {value}\n" for key, value in SHARED.items()))
    drawn = random.Random(0)
    codes: Counter[int] = Counter()
    for key in KEYS:
        for value in EVERY_VALUE if is_long else drawn.sample(EVERY_VALUE, 1):
            words = ("plan", "s.yaml", *only_key(key, value))
            with time_limit():
                found = supsup(*words)
            problem = complaint(Invocation(words, b""), found.code, found.out, found.err)
            assert problem is None, (words, problem, found)
            codes[found.code] += 1
    print(f"{sum(codes.values())} values of {len(KEYS)} keys; exit codes: {dict(codes)}")


_RUN_SWEEPS = ("sweep", "resume", "evaluate", "fork", "retry", "fsck")
_SERVERS = ("ui", "server")


@pytest.mark.long
@pytest.mark.timeout(0)
def test_any_input_is_answered_by_a_process(output: Path) -> None:
    """A sweep that may run, and a server, are interrupted after ten seconds."""
    numbers = itertools.count()
    codes: Counter[int] = Counter()
    most = Counter({"seconds": 0, "megabytes": 0})

    def check(invocation: Invocation) -> None:
        verb = invocation.words[0]
        local = ["--local"] if verb in _RUN_SWEEPS and "--local" not in invocation.words else []
        root = output.parent / f"at{next(numbers)}"
        place = prepare(root, invocation, output)
        before = files_of(root)
        with open(root / "home" / "out", "w") as out, open(root / "home" / "err", "w") as err:
            process = subprocess.Popen(
                [*PROGRAM, verb, *local, *invocation.words[1:]], cwd=place.work, stdout=out, stderr=err,
                stdin=subprocess.DEVNULL, env={**os.environ, "HOME": str(place.home)},
            )  # fmt: skip
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (2 * MOST_BYTES, 2 * MOST_BYTES))
        ended = _ended(process, verb in (*_RUN_SWEEPS, *_SERVERS))
        code = ended.code
        texts = [(root / "home" / name).read_text(errors="replace") for name in ("out", "err")]
        assert complaint(invocation, code, *texts) is None, (code, texts)
        assert ended.num_bytes < MOST_BYTES
        assert ended.seconds < MOST_SECONDS or code == 130
        assert changed_outside(invocation, place, before, files_of(root)) == []
        shutil.rmtree(root)
        codes[code] += 1
        most["seconds"] = max(most["seconds"], round(ended.seconds))
        most["megabytes"] = max(most["megabytes"], ended.num_bytes // 1_000_000)

    fuzz(check, 300, derandomize=False)
    assert set(codes) <= CODES
    print(f"{sum(codes.values())} processes; exit codes: {dict(codes)}; at most {dict(most)}")


class _Ended(NamedTuple):
    """How a process ended. `seconds`: of the processor. `num_bytes`: the largest resident memory that was seen."""

    code: int
    seconds: float
    num_bytes: int


def _ended(process: subprocess.Popen[bytes], may_run: bool) -> _Ended:
    """Waits for the end of a process. may_run: whether it may do work for longer than MOST_SECONDS, and is then
    interrupted.

    Reads the memory while the process runs: the maximum that the kernel reports at the end includes the memory of this
    process, from the moment between fork and exec.
    """
    began = time.monotonic()
    interrupted = False
    num_bytes = 0
    while True:
        found, status, usage = os.wait4(process.pid, os.WNOHANG)
        if found:
            process.returncode = os.waitstatus_to_exitcode(status)
            return _Ended(process.returncode, usage.ru_utime + usage.ru_stime, num_bytes)
        if time.monotonic() - began > 0.1:
            peak = Path(f"/proc/{process.pid}/status").read_text().partition("VmHWM:")[2].split()
            num_bytes = int(peak[0]) * 1024 if peak else num_bytes
        waited = time.monotonic() - began
        if may_run and not interrupted and waited > MOST_SECONDS:
            process.send_signal(signal.SIGINT)
            interrupted = True
        if waited > (6 if may_run else 3) * MOST_SECONDS:
            process.kill()
            raise AssertionError(f"still busy after {waited:.0f} s")
        time.sleep(0.05)
