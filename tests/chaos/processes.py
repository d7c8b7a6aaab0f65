"""Runs supsup commands as forked processes: real processes, which can be killed, without the seconds that imports take.

`faulty_calls.c` is loaded into each of them, so that a test can let a system call fail, or kill a process in the middle
of a system call.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest

from tests.requirements import missing

PRELOADED = [
    "alembic.command", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "matplotlib.pyplot",
    "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "orchestrator.cli.main", "orchestrator.cli.run_sweep",
    "orchestrator.nns.coordinator", "orchestrator.nns.fork", "orchestrator.results.loaded_run",
    "orchestrator.results.report", "orchestrator.tracking.mlflow_writer", "orchestrator.tracking.monitor",
    "sklearn.datasets", "sqlalchemy.dialects.sqlite", "supsup_core.kernels.rmsprop", "supsup_core.kernels.top_k",
    "supsup_core.kernels.mask_products", "tests.chaos.corruption_samples", "tests.chaos.processes",
]  # fmt: skip
"""The modules that forked processes need not import."""


class Calls(IntFlag):
    """Classes of system calls that can fail: calls that need space, syncs, changes of names, and reads."""

    GROW = 1
    SYNC = 2
    NAME = 4
    READ = 8
    CHANGE = 7


@dataclass(frozen=True)
class Fault:
    """A fault of the calls on files below `folder`. Calls count from 1.

    `error`: the number of the error that a call returns, or 0 if the process is killed in the middle of the call. A
    write then writes half of its bytes. `first`, `count`: the calls that fail; if `count` is 0, all later ones fail.
    """

    folder: Path
    first: int
    error: int = 0
    calls: Calls = Calls.CHANGE
    count: int = 0

    def __str__(self) -> str:
        return f"{self.error} {int(self.calls)} {self.first} {self.count} {self.folder}"


def build_library(folder: Path) -> Path:
    """Compiles `faulty_calls.c`, and returns the library. Without a C compiler, the test is skipped."""
    if shutil.which("cc") is None:
        missing("no C compiler (Debian's package gcc)")
    library = folder / "faulty_calls.so"
    source = Path(__file__).with_name("faulty_calls.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@dataclass(frozen=True)
class Ended:
    """How a command ended. `code`: its exit code, or the negative number of the signal that killed it. `calls`: the
    number of calls that could have failed, or None for a killed process."""

    code: int
    out: str
    err: str
    calls: int | None


class Command:
    """A supsup command in a forked process."""

    def __init__(self, process: ForkServerProcess, folder: Path) -> None:
        self._process = process
        self._folder = folder

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.exitcode is None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if the process has not ended."""
        with contextlib.suppress(ProcessLookupError):
            if self.is_running:
                os.kill(self.pid, number)

    def wait(self, seconds: float = 120) -> Ended:
        """Waits for the end of the command. After `seconds`, kills it and raises TimeoutError."""
        self._process.join(seconds)
        out, err = ((self._folder / name).read_text(errors="replace") for name in ("out", "err"))
        if self.is_running:
            self._process.kill()
            raise TimeoutError(f"still running after {seconds} s\n{out}\n{err}")
        assert self._process.exitcode is not None
        with contextlib.suppress(FileNotFoundError):
            return Ended(self._process.exitcode, out, err, int((self._folder / "calls").read_text()))
        return Ended(self._process.exitcode, out, err, None)


class Processes:
    """Runs supsup commands, and functions, in forked processes with the working folder `folder`."""

    def __init__(
        self, context: ForkServerContext, folder: Path, environment: Mapping[str, str], streams: Path | None = None
    ) -> None:
        """streams: the folder for what the processes print (default: a folder in `folder`)."""
        self._context = context
        self.folder = folder
        self.environment = dict(environment)
        self._streams = streams or folder / "commands"
        self._number = 0

    def start(
        self,
        *arguments: object,
        fault: Fault | None = None,
        ahead: Sequence[str] = (),
        prepare: Callable[[], None] | None = None,
    ) -> Command:
        """Starts a command. ahead: names of modules to import first. prepare: see `call`."""
        words = [str(word) for word in arguments]
        return self._start(functools.partial(_supsup, words), fault, ahead, prepare)

    def run(self, *arguments: object, fault: Fault | None = None, prepare: Callable[[], None] | None = None) -> Ended:
        """Runs a command to its end. prepare: see `call`."""
        return self.start(*arguments, fault=fault, prepare=prepare).wait()

    def call(self, function: Callable[[], None], prepare: Callable[[], None] | None = None) -> Ended:
        """Calls a function, which pickle must be able to name, in a process of its own.

        prepare: called first in the process, for example to set a failpoint.
        """
        return self._start(function, None, (), prepare).wait()

    def _start(
        self,
        function: Callable[[], None],
        fault: Fault | None,
        ahead: Sequence[str],
        prepare: Callable[[], None] | None,
    ) -> Command:
        self._number += 1
        own = self._streams / str(self._number)
        own.mkdir(parents=True)
        for name in ("out", "err"):  # the process may be killed before it opens them
            (own / name).touch()
        asked = (function, self.folder, own, self.environment, str(fault) if fault else "", list(ahead), prepare)
        process = self._context.Process(target=_main, args=asked, daemon=True)
        process.start()
        return Command(process, own)


def drop_file_privileges() -> None:
    """Takes root's right to read and write every file from this process. Does nothing for other users."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the interface, this process
    sets = (ctypes.c_uint32 * 6)()  # twice: effective, permitted and inheritable capabilities
    failed = libc.capget(header, sets)
    sets[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert not failed
    assert not libc.capset(header, sets), os.strerror(ctypes.get_errno())


def _supsup(words: list[str]) -> None:
    """Runs the command `supsup WORDS` in this process."""
    from orchestrator.cli import main

    sys.argv = ["supsup", *words]
    main.main()


def _main(
    function: Callable[[], None],
    folder: Path,
    own: Path,
    environment: dict[str, str],
    fault: str,
    ahead: list[str],
    prepare: Callable[[], None] | None,
) -> None:
    """Calls a function in a forked process. own: the folder for the streams."""
    os.setsid()
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(own / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.update(environment)
    os.chdir(folder)
    for name in ahead:
        __import__(name)
    if prepare is not None:
        prepare()
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    library.arm(fault.encode())
    try:
        function()
    finally:
        (own / "calls").write_text(str(library.counted()))
        library.arm(b"")


@pytest.fixture(scope="session")
def fork_context(tmp_path_factory: pytest.TempPathFactory) -> ForkServerContext:
    """The server from which all commands are forked. It has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as home:
        patch.setenv("LD_PRELOAD", str(build_library(tmp_path_factory.mktemp("library"))))
        patch.setenv("HOME", home)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        context.Process(target=_nothing).start()  # starts the server with this environment
    return context


def _nothing() -> None:
    """Does nothing, in a process that only starts the server of forked processes."""
