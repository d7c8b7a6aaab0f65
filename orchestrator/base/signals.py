"""The signals that stop a running sweep or server."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""In this order, the signals mean: Ctrl-C, the end of a job or container, the end of a terminal, and Slurm's warning
before a time limit."""


def heeded() -> list[signal.Signals]:
    """Returns the signals that stop a sweep in this process: STOP_SIGNALS, but without SIGHUP if `nohup` made it
    ignored.

    SIGINT always stops a sweep. A shell makes the background commands (`&`) of a script ignore SIGINT, but `supsup
    stop` sends SIGINT and must stop these commands too.
    """
    ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOP_SIGNALS if not (number is signal.SIGHUP and ignores_hangup)]


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Within the `with` block, a signal that stops commands has one effect only: the yielded function returns True.

    No signal interrupts the block, so the block can always complete its work. Only the main thread may enter the block.
    """
    arrived: list[int] = []
    with contextlib.ExitStack() as restore:
        for number in heeded():
            restore.callback(signal.signal, number, signal.signal(number, lambda number, _: arrived.append(number)))
        yield lambda: bool(arrived)
