"""The signals that stop a running sweep."""

from __future__ import annotations

import signal

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Ctrl-C, the end of a job or container, the end of a terminal, and Slurm's warning before a time limit."""


def heeded() -> list[signal.Signals]:
    """Returns the signals that stop a sweep in this process: all, except those that are ignored, as `nohup` does."""
    return [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
