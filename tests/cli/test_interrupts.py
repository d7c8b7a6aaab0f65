"""The effects of the signals that stop a sweep while it runs."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from orchestrator.base.signals import STOP_SIGNALS
from orchestrator.cli.interrupts import Interrupts

Install = Callable[[bool], Interrupts]


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """Returns a function that installs the signal handlers of a sweep, with or without rounds, until the test ends."""
    with ExitStack() as stack:
        yield lambda has_rounds: stack.enter_context(Interrupts(tmp_path / "pause", has_rounds))


def test_handlers_and_hook_are_restored(install: Install, tmp_path: Path) -> None:
    def current() -> tuple[object, ...]:
        return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook

    before = current()
    with Interrupts(tmp_path / "pause", False):
        assert all(now is not then for now, then in zip(current(), before, strict=True))
    assert current() == before


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_interrupts_a_sweep_without_rounds_immediately(
    install: Install, number: signal.Signals, tmp_path: Path
) -> None:
    handler = install(False)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert handler.raised
    assert handler.requested
    assert not (tmp_path / "pause").exists()


def test_first_signal_requests_a_pause_and_the_second_interrupts(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = install(True)
    signal.raise_signal(signal.SIGINT)
    assert (tmp_path / "pause").exists()
    assert (handler.requested, handler.raised) == (True, False)
    assert "the sweep stops when the current round is committed" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_round_is_not_interrupted_because_it_takes_long(install: Install) -> None:
    install(True)
    signal.raise_signal(signal.SIGTERM)
    assert [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)] == []


def test_after_the_last_round_a_signal_interrupts(install: Install) -> None:
    handler = install(True)
    handler.end_rounds()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_interrupt_during_an_import_waits_until_the_module_is_loaded(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A KeyboardInterrupt within an import can leave Python's import lock held, so that other threads deadlock."""
    (tmp_path / "interrupted_module.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.2)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    install(False)
    loaded = importlib.import_module("interrupted_module")
    with pytest.raises(KeyboardInterrupt):
        time.sleep(2)
    assert loaded.whole


def test_interrupt_that_python_discards_is_sent_again(install: Install) -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    install(False)
    Dying()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(2)


def test_interrupt_ends_only_the_block_that_contains_it(install: Install) -> None:
    handler = install(False)
    with handler.contain():
        signal.raise_signal(signal.SIGINT)
    assert handler.cut_short


def test_error_that_a_library_raises_because_of_an_interrupt_counts_as_the_interrupt(install: Install) -> None:
    handler = install(False)
    with handler.contain():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise RuntimeError("odd") from error
    assert handler.cut_short


def test_other_errors_propagate_out_of_the_block(install: Install) -> None:
    handler = install(False)
    with pytest.raises(RuntimeError, match="broken"), handler.contain():
        raise RuntimeError("broken")
    assert not handler.cut_short


def test_an_interrupted_verb_ends_with_one_line(supsup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """click raises its exception Abort, a RuntimeError, in place of KeyboardInterrupt."""

    def interrupt(*arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("orchestrator.cli.verbs.look.status._show", interrupt)
    found = supsup("status")
    assert (found.code, found.out) == (130, "")
    (line,) = found.err.splitlines()[1:]  # click first ends the line on which the terminal shows ^C
    assert line.startswith("supsup: interrupted; finished work is committed.")
