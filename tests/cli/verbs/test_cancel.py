"""`supsup cancel` and `supsup retry` of a sweep that is not running."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution import launch
from tests.outputs import trained

Command = Callable[..., Any]


@pytest.fixture
def interrupted(supsup: Command, sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep of two runs with one training group, planned and interrupted before its first task."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(launch, "drive", interrupt)
        ran = supsup("sweep", sweep_file(grid={"scenario": ["GG", "GNu"]}), "--local")
    assert ran.code == 130, ran.err


@pytest.mark.usefixtures("interrupted")
def test_cancelled_run_is_not_trained_until_the_printed_command_retries_it(supsup: Command, tmp_path: Path) -> None:
    found = supsup("cancel", "GG")
    assert found.code == 0, found.err
    assert "these runs share the run's training, so the command affects them too: GNu" in found.out
    assert supsup("resume", "--local").code == 0
    assert trained(tmp_path / "runs") == []
    again = supsup("cancel", "GG")
    assert again.code == 2
    assert "nothing to cancel" in again.err
    words = shlex.split(found.out.partition("Undo the cancellation with: ")[2])
    retried = supsup(*words[1:], "--local")
    assert retried.code == 0, retried.err
    assert "3/3 shards" in retried.out


@pytest.mark.usefixtures("interrupted")
def test_task_that_the_run_does_not_have_is_named(supsup: Command) -> None:
    for verb in ("cancel", "retry"):
        found = supsup(verb, "GG", "--task", 3)
        assert found.code == 2
        assert "--task: small-" in found.err
        assert "has no task 3; its tasks are 0 to 2" in found.err
