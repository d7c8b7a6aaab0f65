"""The MLflow server of `supsup ui`: input that it refuses, and how it ends. tests/browser tests its pages."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.base.output_folder import OutputFolder
from orchestrator.tracking.ui_server import refuse_taken, serve, until_interrupted
from supsup_core.errors import InputError


def test_an_output_without_a_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no MLflow database; run a sweep first, or set output=DIR"):
        serve(OutputFolder(tmp_path), 5000)


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port: {port} is already in use"):
            refuse_taken(port)
    refuse_taken(port)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Makes SIGINT raise KeyboardInterrupt, even if a shell started the tests in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_serving_ends_with_the_servers_exit_code_or_when_this_process_is_interrupted(
    tmp_path: Path, interruptible: None
) -> None:
    assert until_interrupted([sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ), tmp_path) == 3
    program = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"

    def interrupt() -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert until_interrupted([sys.executable, "-c", program], dict(os.environ), tmp_path) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
