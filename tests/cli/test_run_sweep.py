"""What a launch refuses before anything waits for it, how it is interrupted, and what it says when it cannot write."""

from __future__ import annotations

import errno
import importlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.cli import run_sweep
from orchestrator.cli.run_sweep import _Interrupt, _refuse_hopeless
from orchestrator.execution.worker import Worker, failure
from orchestrator.sweeps.lookup import open_sweep
from supsup_core.errors import InputError


def test_devices_are_counted_here_but_not_those_of_a_cluster(
    sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    sweep = open_sweep(sweep_file(), ["resources.device=cuda"])
    for here in (None, "local"):
        with pytest.raises(InputError, match="need a CUDA device each and 0 are here"):
            _refuse_hopeless(sweep, here)
    _refuse_hopeless(sweep, "10.0.0.5:6379")  # a head without a GPU


@pytest.fixture
def interrupt(sweep_file: Callable[..., Path], tmp_path: Path) -> Iterator[Callable[[bool], _Interrupt]]:
    """Installs what SIGINT does while a sweep runs, with rounds or without."""
    before = signal.getsignal(signal.SIGINT)

    def install(has_rounds: bool) -> _Interrupt:
        sweep = open_sweep(sweep_file(), [f"output={tmp_path}"])
        sweep.path.mkdir(parents=True)
        handler = _Interrupt(sweep, has_rounds)
        signal.signal(signal.SIGINT, handler)
        return handler

    yield install
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_for_a_module_to_be_loaded(
    interrupt: Callable[[bool], _Interrupt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raised within an import it can leave the interpreter's own lock taken, and other threads waiting for ever."""
    (tmp_path / "interrupted_module.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.2)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    interrupt(False)
    loaded = importlib.import_module("interrupted_module")
    with pytest.raises(KeyboardInterrupt):  # as soon as the module is there
        time.sleep(2)
    assert loaded.whole


def test_an_interrupt_that_python_has_ignored_comes_again(
    interrupt: Callable[[bool], _Interrupt], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sys, "unraisablehook", interrupt(False).unraisable)
    Dying()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(2)


def test_a_pause_that_has_come_about_interrupts_nothing_later(
    interrupt: Callable[[bool], _Interrupt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_sweep, "PAUSE_SECONDS", 0.3)
    handler = interrupt(True)
    signal.raise_signal(signal.SIGINT)
    handler.settle()
    time.sleep(0.6)
    with pytest.raises(KeyboardInterrupt):  # there is no round left to wait for
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_that_a_library_has_caught_fails_no_task(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Worker.run

    def caught(worker: Worker, job: Any) -> Any:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            return failure(job, RuntimeError(f"odd: {error}"))
        return run(worker, job)

    with monkeypatch.context() as patched:
        patched.setattr(Worker, "run", caught)
        found = supsup("sweep", sweep_file(), "--local")
    assert found.code == 130
    assert "FAILED" not in found.out
    assert "Go on with: supsup resume small-" in found.out
    assert supsup("resume", "--local").code == 0


def test_an_interrupt_of_the_end_says_how_to_go_on(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.results.report.write_report", interrupted)
    found = supsup("sweep", sweep_file(), "--local", "output=a folder")
    assert found.code == 130
    told = found.out.splitlines()[-1]
    assert told.startswith("interrupted before all of it was told; everything finished is committed. Go on with: ")
    assert "output='a folder'" in told  # as it can be typed


def test_a_disk_that_is_full_costs_the_report_and_nothing_else(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("orchestrator.results.report.write_atomically", full)
        found = supsup("sweep", sweep_file(), "--local")
        again = supsup("report")
    assert found.code == 1
    assert "accuracy %" in found.out
    assert "report:" not in found.out
    for told in (found.err, again.err):
        assert "report: the report cannot be written (No space left on device); mend that, then: supsup report" in told
        assert "Traceback" not in told
    assert again.code == 2
    assert supsup("report").code == 0
    (folder,) = tmp_path.glob("runs/sweeps/*/report")
    assert {"final.csv", "report.html", "accuracy_by_task.png"} <= {path.name for path in folder.iterdir()}
