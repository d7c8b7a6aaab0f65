"""The signals that stop a running sweep or server."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Ctrl-C, the end of a job or container, the end of a terminal, and Slurm's warning before a time limit."""


def heeded() -> list[signal.Signals]:
    """Returns the signals that stop a sweep in this process: all, except SIGHUP if it is ignored, as with `nohup`.

    A shell lets the commands of a script that end in `&` ignore SIGINT. `supsup stop` must stop these sweeps too.
    """
    ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOP_SIGNALS if not (number is signal.SIGHUP and ignores_hangup)]


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Within the `with` block, the signals that stop a command do only one thing: the yielded function returns True.

    The block can therefore always end what it has started. Only the main thread may enter the block.
    """
    arrived: list[int] = []
    with contextlib.ExitStack() as restore:
        for number in heeded():
            restore.callback(signal.signal, number, signal.signal(number, lambda number, _: arrived.append(number)))
        yield lambda: bool(arrived)
