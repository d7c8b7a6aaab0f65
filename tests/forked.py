"""Runs supsup commands in forked children of this process: as separate as processes, but without their imports."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECONDS = 120.0
"""The longest time that a command may take."""


@dataclass(frozen=True)
class Answer:
    """How a command ended. `code`: the exit code, negative after a signal. `out`, `err`: what it printed."""

    code: int
    out: str
    err: str


_LIBRARIES = ("mlflow.store.tracking.sqlalchemy_store", "mlflow.pyfunc", "matplotlib.backends.backend_svg")
_OURS = ("cli.run_sweep", "cli.conclusion", "cli.tracker", "tracking.mlflow_writer", "results.report.figures")


def load_ahead() -> None:
    """Imports what commands import, so that their children need not."""
    verbs = (Path(__file__).parents[1] / "orchestrator" / "cli" / "verbs").glob("*/[!_]*.py")
    names = [*_OURS, *(f"cli.verbs.{path.parent.name}.{path.stem}" for path in verbs)]
    with warnings.catch_warnings(action="ignore"):
        for name in (*_LIBRARIES, "matplotlib.style", *(f"orchestrator.{name}" for name in names)):
            importlib.import_module(name)


def command(folder: Path, *words: object, prepare: Callable[[], None] | None = None) -> Answer:
    """Runs `supsup WORDS` in a folder (see `call`)."""

    def main() -> None:
        from orchestrator.cli import main as program

        sys.argv = ["supsup", *map(str, words)]
        program.main()

    return call(folder, main, prepare)


def call(folder: Path, function: Callable[[], None], prepare: Callable[[], None] | None = None) -> Answer:
    """Calls a function in a forked child, whose working and home folder is `folder`.

    prepare: called in the child before `function`, for example to set a failpoint.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            _run(folder, function, prepare, out.fileno(), err.fileno())
        status = _wait(child)
        answer = []
        for file in (out, err):
            file.seek(0)
            answer.append(file.read().decode(errors="replace"))
    return Answer(os.waitstatus_to_exitcode(status), *answer)


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


def _run(
    folder: Path,
    function: Callable[[], None],
    prepare: Callable[[], None] | None,
    out: int,
    err: int,
) -> None:
    """Calls the function and ends this process, which is a forked child."""
    code = 70
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
        warnings.resetwarnings()  # pytest makes errors of them
        warnings.simplefilter("ignore")
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        os.chdir(folder)
        os.environ["HOME"] = str(folder)
        if prepare is not None:
            prepare()
        function()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - the parent reads the traceback
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int) -> int:
    """Waits for a child and returns its status. Kills it after SECONDS; it then ends with signal 9."""
    deadline = time.monotonic() + SECONDS
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        time.sleep(0.002)
