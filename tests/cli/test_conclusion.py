"""The end of `supsup sweep`: the messages after an interrupt, and if the report cannot be written."""

from __future__ import annotations

import errno
import shlex
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


def test_interrupt_during_the_summary_prints_the_command_that_continues(
    supsup: Command, sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("orchestrator.results.report.write_report", interrupted)
        found = supsup("sweep", sweep_file(), "--local", "output=a folder")
    assert found.code == 130
    last = found.out.splitlines()[-1]
    assert last.startswith("interrupted before the summary was complete; all finished work is committed. Go on with: ")
    _, *words = shlex.split(last.partition("Go on with: ")[2])
    assert "output=a folder" in words
    again = supsup(*words, "--local")
    assert again.code == 0, again.err


def test_full_disk_loses_only_the_report(
    supsup: Command, sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("orchestrator.results.report.files.write_atomically", full)
        found = supsup("sweep", sweep_file(), "--local")
        again = supsup("report")
    assert found.code == 1
    assert "accuracy %" in found.out
    assert "report:" not in found.out
    for message in (found.err, again.err):
        assert "report: the report cannot be written (No space left on device)" in message
        assert "supsup report small-" in message
        assert "Traceback" not in message
    assert again.code == 2
    assert supsup("report").code == 0
    (folder,) = tmp_path.glob("runs/sweeps/*/report")
    assert {"final.csv", "report.html", "accuracy_by_task.png"} <= {path.name for path in folder.iterdir()}


def test_cancelled_task_is_printed_with_the_command_that_retries_it(
    supsup: Command, sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.execution import launch

    with monkeypatch.context() as patched:
        patched.setattr(launch, "drive", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert supsup("sweep", sweep_file(), "--local").code == 130
    assert supsup("cancel", "GNu", "--task", 1).code == 0
    found = supsup("resume", "--local")
    (line,) = [line for line in found.out.splitlines() if line.startswith("cancelled: task 1")]
    words = shlex.split(line.partition("retry the task with: ")[2])
    assert words[:2] == ["supsup", "retry"]
    again = supsup(*words[1:], "--local")
    assert again.code == 0, again.err
    assert "3/3 shards" in again.out


def test_an_error_in_a_figure_loses_only_the_report(
    supsup: Command, sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("in a figure")

    with monkeypatch.context() as patched:
        patched.setattr("orchestrator.results.report.figures.accuracy_by_task", broken)
        found = supsup("sweep", sweep_file(), "--local")
    assert found.code == 1
    assert "the report cannot be written (ZeroDivisionError: in a figure)" in found.err
    assert "3/3 shards" in found.out
    with closing(sqlite3.connect(tmp_path / "runs" / "mlflow" / "mlflow.db")) as db:
        assert {status for (status,) in db.execute("SELECT status FROM runs")} == {"FINISHED"}
    assert supsup("report").code == 0
