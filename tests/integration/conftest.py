"""The installed command in processes of its own, with a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-m", "orchestrator.cli"]

Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """Start a supsup command in tmp_path, in a session of its own so that all of it can be killed."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)

    def start(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PROGRAM, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.fixture
def call(launch: Launch) -> Callable[..., tuple[int, str, str]]:
    """Run a supsup command to its end: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        process = launch(*arguments)
        out, err = process.communicate(timeout=280)
        return process.returncode, out, err

    return run
