"""The MLflow server of `supsup ui`: input that it refuses, and how it ends. tests/browser tests its pages."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.base.output_folder import OutputFolder
from orchestrator.tracking.ui_server import end_processes, refuse_taken, serve, until_stopped
from supsup_core.errors import InputError


def test_an_output_without_a_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no MLflow database; run a sweep first, or set output=DIR"):
        serve(OutputFolder(tmp_path), 5000)


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            InputError, match=f"--port: {port} is already in use on 127.0.0.1 by process {os.getpid()} "
        ):
            refuse_taken(port)
    refuse_taken(port)


def test_a_port_that_this_user_may_not_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", forbid)
    with pytest.raises(InputError, match=r"--port: 80 cannot be used .*choose a port above 1023"):
        refuse_taken(80)


def test_processes_that_ignore_a_signal_get_the_next_one() -> None:
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        process = psutil.Process(stubborn.pid)
        assert end_processes([process], [signal.SIGTERM], 0.2) == [process]
        assert end_processes([process], [signal.SIGTERM, signal.SIGKILL], 0.2) == []
        assert stubborn.wait() == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_server_runs_until_a_signal_and_its_own_end_is_told_by_its_exit_code(
    number: signal.Signals, tmp_path: Path
) -> None:
    assert until_stopped([sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ), tmp_path) == 3
    child = "import time; time.sleep(600)"
    program = (
        f"import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "open('pid', 'w').write(str(child.pid)); time.sleep(600)"
    )

    def interrupt() -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    before = signal.getsignal(number)
    assert until_stopped([sys.executable, "-c", program], dict(os.environ), tmp_path) is None
    assert signal.getsignal(number) is before
    child_of_server = int((tmp_path / "pid").read_text())
    with contextlib.suppress(psutil.NoSuchProcess):  # nobody may have waited for it
        assert psutil.Process(child_of_server).status() == psutil.STATUS_ZOMBIE
