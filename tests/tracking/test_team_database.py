"""How a server finds the PostgreSQL that a killed server left. tests/browser runs a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.tracking.team_database import stop_orphan

SLEEPER = "import time; print(flush=True); time.sleep(600)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a server, with the data folder of its PostgreSQL."""
    (tmp_path / "postgres").mkdir()
    return tmp_path


@pytest.fixture
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """A process that belongs to no server. Its name is `postgres`."""
    place = tmp_path_factory.mktemp("elsewhere")
    (place / "postgres").symlink_to(sys.executable)
    with subprocess.Popen([place / "postgres", "-c", SLEEPER], cwd=place, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def lock_file(folder: Path, process: int, socket: Path) -> Path:
    """Writes the file in which PostgreSQL stores the number of its main process."""
    path = folder / "postgres" / "postmaster.pid"
    path.write_text(f"{process}\n{folder / 'postgres'}\n1700000000\n5432\n{socket}\n\n  123 45\nready\n")
    return path


def test_a_process_that_got_the_number_of_a_dead_postgresql_is_not_touched(
    folder: Path, stranger: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    for number in (stranger.pid, os.getpid()):
        path = lock_file(folder, number, tmp_path)
        assert not stop_orphan(folder)
        assert not path.exists()  # PostgreSQL would refuse to start
    assert stranger.poll() is None
    assert psutil.Process(stranger.pid).name() == "postgres"


def test_the_file_of_a_dead_process_is_left_to_postgresql_and_its_socket_is_removed(folder: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    ours, other = folder / "supsup-abc", folder / "other"
    for socket in (ours, other):
        socket.mkdir()
        path = lock_file(folder, ended.pid, socket)
        assert not stop_orphan(folder)
        assert path.exists()
    assert (ours.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize("content", ["", "x\n", "12\n"])
def test_a_file_that_cannot_be_read_is_left_to_postgresql(content: str, folder: Path) -> None:
    path = folder / "postgres" / "postmaster.pid"
    path.write_text(content)
    assert not stop_orphan(folder)
    assert path.read_text() == content


def test_a_folder_without_postgresql_has_no_orphan(tmp_path: Path) -> None:
    assert not stop_orphan(tmp_path)


def test_processes_of_the_data_folder_are_ended(folder: Path, tmp_path: Path) -> None:
    """The main process gets PostgreSQL's fast shutdown, SIGINT. Without a main process, all others get SIGQUIT."""
    program = tmp_path / "postgres.d" / "postgres"
    program.parent.mkdir()
    program.symlink_to(sys.executable)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for main, wanted in ((None, -signal.SIGINT), (ended.pid, -signal.SIGQUIT)):
        command = [program, "-c", f"import signal; [signal.signal(n, signal.SIG_DFL) for n in (2, 3)]; {SLEEPER}"]
        with subprocess.Popen(command, cwd=folder / "postgres", stdout=subprocess.PIPE) as orphan:
            assert orphan.stdout is not None
            orphan.stdout.readline()
            lock_file(folder, main or orphan.pid, tmp_path)
            assert stop_orphan(folder)
            assert orphan.wait() == wanted
